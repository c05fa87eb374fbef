pub mod topics;
pub(super) fn spawn(
    name: std::sync::Arc<str>,
    _: &crate::config::plan::MqttPlan,
    _: &std::sync::Arc<super::ActionContext>,
) -> Result<super::ActionHandle, super::ActionError> {
    let outbox = std::sync::Arc::new(super::outbox::Outbox::new(1, super::outbox::Overflow::Drop));
    super::runner::spawn(name.clone(), outbox, std::sync::Arc::new(super::runner::StatusCell::new(name)), || {})
}
