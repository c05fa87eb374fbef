//! Judge every part: each request gets exactly one verdict. Pure `(state, request or frame, now) → (state, verdicts)`.
//!
//! A request is answered by the first frame that was captured at or after its edge plus `delay`, whatever that frame shows;
//! when none has been classified `timeout` after the edge, by a fault. At most `queue` requests wait; one more is answered
//! by a fault at once, and those that wait are not harmed. Verdicts come in the order of the requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Change, Event, Observation, Outcome, Verdict};
use super::{RuleProblem, View, classes};
use crate::clock::Monotonic;
use crate::config::plan::{Plan, StationPlan};

/// The limits of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the edge to the earliest frame that counts.
    pub delay: Duration,
    /// From the edge to the verdict at most.
    pub timeout: Duration,
    /// Requests that may wait.
    pub queue: usize,
}

/// One request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The part's number, if it is known.
    pub part: Option<Arc<str>>,
    /// The edge, or the message's arrival.
    pub asked: Monotonic,
}

/// The requests of one station.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// By the time of their edges.
    waiting: VecDeque<Request>,
}

impl Requests {
    /// Takes a request; gives it back if too many wait.
    ///
    /// # Errors
    /// The request itself: it overflows.
    pub fn ask(&mut self, limits: &Limits, request: Request) -> Result<(), Request> {
        if self.waiting.len() >= limits.queue {
            return Err(request);
        }
        // A message and an edge may be told in another order than they came.
        let place = self.waiting.partition_point(|other| other.asked <= request.asked);
        self.waiting.insert(place, request);
        Ok(())
    }

    /// The requests that a frame captured at `captured` answers. Those whose time is over by `now` are to be taken by
    /// [`expired`](Self::expired) before.
    pub fn answered(&mut self, limits: &Limits, captured: Monotonic) -> Vec<Request> {
        let count = self.waiting.partition_point(|request| request.asked + limits.delay <= captured);
        self.waiting.drain(..count).collect()
    }

    /// The requests whose time is over.
    pub fn expired(&mut self, limits: &Limits, now: Monotonic) -> Vec<Request> {
        let count = self.waiting.partition_point(|request| request.asked + limits.timeout <= now);
        self.waiting.drain(..count).collect()
    }

    /// When the next request's time is over.
    pub fn deadline(&self, limits: &Limits) -> Option<Monotonic> {
        self.waiting.front().map(|request| request.asked + limits.timeout)
    }
}

/// One station, resolved against a model's labels.
#[derive(Clone, Debug)]
pub(super) struct Station {
    pub(super) name: Arc<str>,
    pub(super) view: View,
    pub(super) classes: Vec<usize>,
    on: f32,
    limits: Limits,
    pub(super) requests: Requests,
}

/// Every station of a plan.
#[derive(Clone, Debug, Default)]
pub struct StationSet {
    pub(super) stations: Vec<Station>,
    pub(super) labels: Vec<Arc<str>>,
}

impl StationSet {
    /// Resolves a plan's stations against a model's labels, by index.
    ///
    /// # Errors
    /// Every class and view that is not there.
    pub fn compile<L: AsRef<str>>(plan: &Plan, labels: &[L]) -> Result<Self, Vec<RuleProblem>> {
        let mut problems = Vec::new();
        // What is wrong with a group is a problem of the rules.
        let groups = classes::Groups::resolve(&plan.groups, labels, &mut Vec::new());
        let stations = plan.stations.iter().enumerate();
        let stations =
            stations.filter_map(|(index, it)| compile_one(index, it, plan, &groups, &mut problems)).collect();
        let labels = labels.iter().map(|label| Arc::from(label.as_ref())).collect();
        if problems.is_empty() { Ok(Self { stations, labels }) } else { Err(problems) }
    }

    /// Asks the station of this name; a verdict at once if too many requests wait. `None`: there is no such station.
    pub fn ask(&mut self, name: &str, request: Request, now: Monotonic) -> Option<Vec<Event>> {
        let station = self.stations.iter_mut().find(|station| &*station.name == name)?;
        Some(match station.requests.ask(&station.limits, request) {
            Ok(()) => Vec::new(),
            Err(request) => vec![station.fault(request, Outcome::Overflow, now)],
        })
    }

    /// Whether a frame of `camera`, captured at `captured`, answers a request.
    pub fn is_asked(&self, camera: &str, captured: Monotonic) -> bool {
        let own = self.stations.iter().filter(|station| *station.view.camera == *camera);
        own.into_iter()
            .any(|it| it.requests.waiting.front().is_some_and(|first| first.asked + it.limits.delay <= captured))
    }

    /// The verdicts that a classified view brings.
    pub fn observe(&mut self, seen: &Observation, now: Monotonic) -> Vec<Event> {
        let mut events = self.tick(now);
        for station in &mut self.stations {
            if station.view.camera == seen.camera && station.view.region == seen.region {
                let answered = station.requests.answered(&station.limits, seen.captured);
                events.extend(answered.into_iter().map(|request| station.judge(request, seen, &self.labels, now)));
            }
        }
        events
    }

    /// The faults of requests whose time is over.
    pub fn tick(&mut self, now: Monotonic) -> Vec<Event> {
        let mut events = Vec::new();
        for station in &mut self.stations {
            let expired = station.requests.expired(&station.limits, now);
            events.extend(expired.into_iter().map(|request| station.fault(request, Outcome::TimedOut, now)));
        }
        events
    }

    /// When [`Self::tick`] next has something to do.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.stations.iter().filter_map(|station| station.requests.deadline(&station.limits)).min()
    }
}

fn compile_one<L: AsRef<str>>(
    index: usize,
    plan: &StationPlan,
    whole: &Plan,
    groups: &classes::Groups<'_, L>,
    problems: &mut Vec<RuleProblem>,
) -> Option<Station> {
    let mut report = |key: String, problem: String| {
        problems.push(RuleProblem {
            kind: "station",
            name: plan.name.clone(),
            key: format!("station[{index}].{key}"),
            problem,
        });
    };
    let found = groups.union("classes", &plan.classes, &mut report);
    let views: Vec<View> = super::views_of(whole).into_iter().filter(|view| view.is_named(&plan.view)).collect();
    let [view] = views.as_slice() else {
        let regions = views.iter().map(View::to_string).collect::<Vec<_>>().join(", ");
        report("camera".into(), format!("{:?} has several views; name one of {regions}", plan.view));
        return None;
    };
    let limits = Limits { delay: plan.delay, timeout: plan.timeout, queue: plan.queue };
    let requests = Requests::default();
    Some(Station { name: plan.name.clone(), view: view.clone(), classes: found, on: plan.on, limits, requests })
}

impl Station {
    /// The faults of all requests that wait.
    pub(super) fn give_up(&mut self, now: Monotonic) -> Vec<Event> {
        let waiting = std::mem::take(&mut self.requests.waiting);
        waiting.into_iter().map(|request| self.fault(request, Outcome::TimedOut, now)).collect()
    }

    fn judge(&self, request: Request, seen: &Observation, labels: &[Arc<str>], now: Monotonic) -> Event {
        let sample = super::Sample::new(&self.classes, seen);
        let outcome = if sample.probability >= self.on { Outcome::Pass } else { Outcome::Fail };
        Event {
            class: sample.class,
            label: super::label(labels, sample.class),
            probability: sample.probability,
            captured: seen.captured,
            sequence: seen.sequence,
            origin: seen.origin.clone(),
            ..self.fault(request, outcome, now)
        }
    }

    /// A verdict that no frame decided: it has no class, and the time of the request for that of the capture.
    fn fault(&self, request: Request, outcome: Outcome, now: Monotonic) -> Event {
        Event {
            rule: self.name.clone(),
            change: Change::On,
            camera: self.view.camera.clone(),
            region: self.view.region.clone(),
            class: 0,
            label: "".into(),
            probability: 0.0,
            captured: request.asked,
            decided: now,
            sequence: 0,
            origin: None,
            verdict: Some(Arc::new(Verdict { outcome, part: request.part, asked: request.asked })),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { delay: Duration::from_millis(50), timeout: Duration::from_millis(200), queue: 2 };

    fn at(ms: u64) -> Monotonic {
        Monotonic::default() + Duration::from_millis(ms)
    }

    fn request(ms: u64) -> Request {
        Request { part: Some(ms.to_string().into()), asked: at(ms) }
    }

    fn times(requests: Vec<Request>) -> Vec<u64> {
        requests.into_iter().map(|it| it.part.unwrap().parse().unwrap()).collect()
    }

    #[derive(Debug)]
    enum Step {
        /// A request of this time, and whether it is taken.
        Ask(u64, bool),
        /// A frame captured at this time, and the requests that it answers.
        Frame(u64, &'static [u64]),
        /// Time, and the requests that are over.
        Tick(u64, &'static [u64]),
    }
    use Step::{Ask, Frame, Tick};

    #[test]
    fn a_table_of_requests_frames_and_times() {
        let table: &[&[Step]] = &[
            // The frame before the delay is not the part's.
            &[Ask(100, true), Frame(99, &[]), Frame(149, &[]), Frame(150, &[100]), Frame(160, &[])],
            // Two parts before one frame are both answered by it, the older first.
            &[Ask(100, true), Ask(110, true), Frame(170, &[100, 110])],
            // Each its own frame.
            &[Ask(100, true), Ask(140, true), Frame(155, &[100]), Frame(188, &[]), Frame(190, &[140])],
            // A third overflows and harms nobody; afterwards there is room.
            &[Ask(100, true), Ask(110, true), Ask(120, false), Frame(160, &[100, 110]), Ask(165, true)],
            // Time-outs are counted from the edge.
            &[Ask(100, true), Ask(110, true), Tick(299, &[]), Tick(300, &[100]), Frame(305, &[110]), Tick(900, &[])],
            // Told late, and yet in the order of their edges.
            &[Ask(110, true), Ask(100, true), Frame(152, &[100]), Frame(165, &[110])],
        ];
        for (row, steps) in table.iter().enumerate() {
            let mut requests = Requests::default();
            for step in *steps {
                match *step {
                    Ask(time, taken) => {
                        assert_eq!(requests.ask(&LIMITS, request(time)).is_ok(), taken, "{row}: {step:?}")
                    }
                    Frame(time, answers) => {
                        assert_eq!(times(requests.answered(&LIMITS, at(time))), answers, "{row}: {step:?}");
                    }
                    Tick(time, over) => assert_eq!(times(requests.expired(&LIMITS, at(time))), over, "{row}: {step:?}"),
                }
            }
        }
    }

    proptest! {
        /// Whatever comes in whatever order: every request is answered exactly once, by an overflow, by a frame that is
        /// late enough, or by time; never more wait than may, and never is one left whose time is over.
        #[test]
        fn every_request_is_answered_exactly_once(steps in prop::collection::vec((0u8..3, 0u64..40), 0..200)) {
            let (mut requests, mut now) = (Requests::default(), 1000);
            let (mut asked, mut answered) = (Vec::new(), Vec::new());
            for (kind, wait) in steps {
                now += wait;
                let over = times(requests.expired(&LIMITS, at(now)));
                prop_assert!(over.iter().all(|time| time + 200 <= now));
                answered.extend(over);
                match kind {
                    0 => {
                        asked.push(now);
                        answered.extend(requests.ask(&LIMITS, request(now)).err().map(|_| now));
                    }
                    1 => {
                        let found = times(requests.answered(&LIMITS, at(now)));
                        prop_assert!(found.iter().all(|time| time + 50 <= now && now < time + 200));
                        prop_assert!(found.is_sorted());
                        answered.extend(found);
                        prop_assert!(requests.waiting.iter().all(|it| it.asked + LIMITS.delay > at(now)));
                    }
                    _ => {}
                }
                prop_assert!(requests.waiting.len() <= LIMITS.queue);
                prop_assert!(requests.deadline(&LIMITS).is_none_or(|deadline| deadline > at(now)));
            }
            answered.extend(times(requests.expired(&LIMITS, at(now + 1000))));
            answered.sort_unstable();
            prop_assert_eq!(asked, answered);
        }
    }
}
