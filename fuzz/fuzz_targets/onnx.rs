#![no_main]
//! A model, mutated as a message: nine mutants of ten are still graphs, and reach what stands behind the parser.

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use prost::Message;
use tract_onnx::pb::{GraphProto, ModelProto};

fuzz_target!(init: spotter::fuzzing::start(), |data: &[u8]| spotter::fuzzing::onnx(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random(u64::from(seed) << 1 | 1);
    match ModelProto::decode(&data[..size]).ok().filter(|_| random.below(10) > 0) {
        Some(mut model) => {
            model.graph.iter_mut().for_each(|graph| change(graph, &mut random));
            let bytes = model.encode_to_vec();
            if bytes.len() > max_size {
                return size;
            }
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

/// xorshift64 (Marsaglia 2003)
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit.max(1)
    }

    /// A size, an axis, a padding: mostly small, sometimes what nobody expects.
    fn number(&mut self) -> i64 {
        const ODD: [i64; 8] = [-1, 0, i64::MAX, i64::MIN, 1 << 31, 1 << 40, 65_537, 255];
        if self.below(3) > 0 { self.below(20) as i64 } else { ODD[self.below(ODD.len())] }
    }
}

/// One to three changes of nodes, attributes, connections and weights.
fn change(graph: &mut GraphProto, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let (nodes, weights) = (graph.node.len(), graph.initializer.len());
        if nodes == 0 || weights == 0 {
            return;
        }
        let (at, other) = (random.below(nodes), random.below(nodes));
        match random.below(8) {
            0 => _ = graph.node.remove(at),
            1 => graph.node[at].op_type = graph.node[other].op_type.clone(),
            2 => {
                let mut copy = graph.node[other].clone();
                copy.output.iter_mut().for_each(|name| name.push('_'));
                graph.node.insert(at, copy);
            }
            3 => connect(graph, at, random),
            4 | 5 => attribute(graph, at, random),
            6 => {
                let dims = &mut graph.initializer[random.below(weights)].dims;
                match dims.len() {
                    0 => dims.push(random.number()),
                    axes => dims[random.below(axes)] = random.number(),
                }
            }
            _ => weight(graph, random),
        }
    }
}

/// Another tensor for one of a node's inputs.
fn connect(graph: &mut GraphProto, at: usize, random: &mut Random) {
    let outputs = graph.node.iter().flat_map(|node| &node.output);
    let names: Vec<String> = outputs.chain(graph.initializer.iter().map(|weight| &weight.name)).cloned().collect();
    let inputs = &mut graph.node[at].input;
    match inputs.len() {
        0 => {}
        count => inputs[random.below(count)] = names[random.below(names.len())].clone(),
    }
}

fn attribute(graph: &mut GraphProto, at: usize, random: &mut Random) {
    let attributes = &mut graph.node[at].attribute;
    if attributes.is_empty() {
        return;
    }
    let index = random.below(attributes.len());
    let attribute = &mut attributes[index];
    match attribute.ints.len() {
        0 => attribute.i = random.number(),
        count => attribute.ints[random.below(count)] = random.number(),
    }
}

/// A weight's value, length or type.
fn weight(graph: &mut GraphProto, random: &mut Random) {
    let index = random.below(graph.initializer.len());
    let weight = &mut graph.initializer[index];
    match random.below(4) {
        0 => weight.data_type = random.below(17) as i32,
        1 if !weight.raw_data.is_empty() => {
            let mut bytes = weight.raw_data.to_vec();
            let at = random.below(bytes.len());
            bytes[at] = random.below(256) as u8;
            weight.raw_data = bytes.into();
        }
        2 => weight.int64_data.iter_mut().for_each(|value| *value = random.number()),
        _ => weight.float_data.iter_mut().for_each(|value| *value = f32::from_bits(random.below(1 << 32) as u32)),
    }
}
