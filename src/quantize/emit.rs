//! The quantised graph: standard operators only, in the QOperator form.
//!
//! A tensor exists as codes, as floats, or as both; what a reader wants and nobody made yet is made by QuantizeLinear or
//! DequantizeLinear. A fully connected layer with a bias becomes a QLinearConv whose window is its whole input, because
//! QLinearMatMul has no bias; one without becomes a QLinearMatMul.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::onnx::{float_tensor, integer, integer_list, node, tensor};
use super::roles::{Product, ProductKind, Role, Shapes, is_average};
use super::simplify::drop_unread_weights;
use super::weights::{self, QuantizedWeights};

/// A product with its weights in codes.
pub(super) struct Quantized {
    pub(super) product: Product,
    pub(super) weights: QuantizedWeights,
    /// Dimensions of the weights as the float graph has them.
    pub(super) dims: Vec<usize>,
    /// One an output, in the float network's units.
    pub(super) bias: Vec<f32>,
}

impl Quantized {
    /// Takes out what the weights' rounding adds to each output on average, from the mean of each input channel (after
    /// Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction").
    pub(super) fn correct_bias(&mut self, means: &[f32]) {
        let outputs = self.product.outputs;
        let each = self.weights.error.len() / outputs.max(1);
        // the outputs of a group read the channels of that group
        let groups = if each == 0 || !means.len().is_multiple_of(each) { return } else { means.len() / each };
        for (output, (bias, error)) in self.bias.iter_mut().zip(self.weights.error.chunks(each)).enumerate() {
            let first = output * groups / outputs * each;
            *bias -= error.iter().zip(&means[first..]).map(|(e, m)| e * m).sum::<f32>();
        }
    }
}

/// Scale and zero point by tensor.
pub(super) type Codes = HashMap<String, (f32, u8)>;

/// Turns the float graph into the quantised one. `products` by the index of their node.
pub(super) fn emit(
    graph: &mut GraphProto,
    roles: &[Role],
    products: HashMap<usize, Quantized>,
    codes: &Codes,
    shapes: &Shapes,
) {
    let nodes = std::mem::take(&mut graph.node);
    let weights: HashSet<String> = graph.initializer.iter().map(|i| i.name.clone()).collect();
    let by_name: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|i| (i.name.as_str(), i)).collect();
    let averages = nodes.iter().filter(|n| is_average(n, &by_name)).map(|n| n.name.clone()).collect();
    let (made, constants) = (HashMap::new(), Vec::new());
    let mut emitter = Emitter { codes, shapes, weights, averages, products, nodes: Vec::new(), made, constants };
    for input in &graph.input {
        emitter.made.insert(input.name.clone(), Made::float(&input.name));
        emitter.quantize_if_wanted(&input.name);
    }
    for (index, node) in nodes.into_iter().enumerate() {
        emitter.node(index, node, &roles[index]);
    }
    for output in &graph.output {
        emitter.float(&output.name);
    }
    graph.node = emitter.nodes;
    graph.initializer.extend(emitter.constants);
    graph.value_info.clear();
    graph.quantization_annotation.clear();
    drop_unread_nodes(graph);
    drop_unread_weights(graph);
}

/// The forms in which a tensor exists.
#[derive(Clone, Debug, Default)]
struct Made {
    float: Option<String>,
    codes: Option<CodesOf>,
}

#[derive(Clone, Debug)]
struct CodesOf {
    name: String,
    /// Names of scale and zero point.
    scale: String,
    zero_point: String,
    affine: (f32, u8),
    /// The same codes as an image, where they were flattened from one: its name, channels, height and width.
    image: Option<(String, [usize; 3])>,
}

impl Made {
    fn float(name: &str) -> Made {
        Made { float: Some(name.into()), codes: None }
    }
}

struct Emitter<'a> {
    codes: &'a Codes,
    shapes: &'a Shapes,
    weights: HashSet<String>,
    /// Nodes that average each channel.
    averages: HashSet<String>,
    products: HashMap<usize, Quantized>,
    nodes: Vec<NodeProto>,
    made: HashMap<String, Made>,
    constants: Vec<TensorProto>,
}

impl Emitter<'_> {
    fn node(&mut self, index: usize, node: NodeProto, role: &Role) {
        match role {
            Role::Product(_) => {
                if let Some(quantized) = self.products.remove(&index) {
                    self.product(node, quantized);
                }
            }
            Role::Folded => {}
            Role::Carry if self.made.get(&node.input[0]).is_some_and(|m| m.codes.is_some()) => self.carry(node),
            Role::Clamp(_) => {
                let float = self.float(&node.input[0]);
                let codes = self.quantizer(&node.output[0], &float);
                self.made.insert(node.output[0].clone(), Made { float: None, codes });
            }
            Role::Carry | Role::Float => self.float_node(node),
        }
    }

    fn float_node(&mut self, mut node: NodeProto) {
        let average = self.averages.contains(&node.name);
        for input in node.input.iter_mut().filter(|i| !i.is_empty()) {
            if !self.weights.contains(input) {
                *input = if average { self.dequantized(input) } else { self.float(input) };
            }
        }
        let outputs = node.output.clone();
        self.nodes.push(node);
        for output in outputs {
            self.made.insert(output.clone(), Made::float(&output));
            self.quantize_if_wanted(&output);
        }
    }

    /// The name of a tensor as floats; dequantised where it is codes only.
    fn float(&mut self, tensor: &str) -> String {
        let made = self.made.entry(tensor.into()).or_default();
        if let Some(float) = &made.float {
            return float.clone();
        }
        let Some(codes) = made.codes.clone() else { return tensor.into() };
        made.float = Some(tensor.into());
        let name = format!("{tensor}.dequantize");
        self.nodes.push(node(
            "DequantizeLinear",
            &name,
            &[&codes.name, &codes.scale, &codes.zero_point],
            tensor,
            vec![],
        ));
        tensor.into()
    }

    /// The name of a tensor as floats that come from its codes, where it has any.
    fn dequantized(&mut self, tensor: &str) -> String {
        let made = self.made.get(tensor).cloned().unwrap_or_default();
        let (Some(_), Some(codes)) = (made.float, made.codes) else { return self.float(tensor) };
        let (name, output) = (format!("{tensor}.dequantize"), format!("{tensor}.dequantized"));
        self.nodes.push(node(
            "DequantizeLinear",
            &name,
            &[&codes.name, &codes.scale, &codes.zero_point],
            &output,
            vec![],
        ));
        output
    }

    fn quantize_if_wanted(&mut self, tensor: &str) {
        if self.codes.contains_key(tensor) {
            let codes = self.quantizer(tensor, tensor);
            self.made.entry(tensor.into()).or_default().codes = codes;
        }
    }

    /// Codes of `tensor`, quantised from `float`.
    fn quantizer(&mut self, tensor: &str, float: &str) -> Option<CodesOf> {
        let codes = self.codes_of(tensor)?;
        let (name, inputs) = (format!("{tensor}.quantize"), [float, &codes.scale, &codes.zero_point]);
        self.nodes.push(node("QuantizeLinear", &name, &inputs, &codes.name, vec![]));
        Some(codes)
    }

    /// Names and constants for a tensor's codes.
    fn codes_of(&mut self, of: &str) -> Option<CodesOf> {
        let affine = *self.codes.get(of)?;
        let (scale, zero_point) = (format!("{of}.scale"), format!("{of}.zero_point"));
        self.constants.push(float_tensor(&scale, &[], &[affine.0]));
        self.constants.push(tensor(&zero_point, DataType::Uint8, &[], vec![affine.1]));
        Some(CodesOf { name: format!("{of}.codes"), scale, zero_point, affine, image: None })
    }

    fn carry(&mut self, mut carrier: NodeProto) {
        let (input, output) = (carrier.input[0].clone(), carrier.output[0].clone());
        let Some(mut codes) = self.made.get(&input).and_then(|m| m.codes.clone()) else { return };
        carrier.input[0] = codes.name.clone();
        let flattened = matches!(carrier.op_type.as_str(), "Flatten" | "Reshape" | "Squeeze");
        codes.image = match self.shapes.get(&input).map(Vec::as_slice) {
            Some(&[1, channels, height, width]) if flattened => Some((codes.name, [channels, height, width])),
            _ => codes.image.filter(|_| flattened),
        };
        codes.name = format!("{output}.codes");
        carrier.output[0].clone_from(&codes.name);
        self.nodes.push(carrier);
        self.made.insert(output, Made { float: None, codes: Some(codes) });
    }

    fn product(&mut self, float: NodeProto, quantized: Quantized) {
        let Some(input) = self.made.get(&quantized.product.input).and_then(|m| m.codes.clone()) else { return };
        let Some(output) = self.codes_of(&quantized.product.output) else { return };
        let made = match quantized.product.kind {
            ProductKind::Convolution => {
                let dims = quantized.dims.clone();
                self.convolution(&float.name, &quantized, &dims, (&input, &input.name), &output, float.attribute);
                output
            }
            _ if quantized.bias.iter().all(|b| *b == 0.0) => self.matrix(&float.name, &quantized, &input, output),
            _ => self.whole_window(&float.name, &quantized, &input, output),
        };
        self.made.insert(quantized.product.output, Made { float: None, codes: Some(made) });
    }

    fn convolution(
        &mut self,
        name: &str,
        quantized: &Quantized,
        dims: &[usize],
        (input, input_name): (&CodesOf, &str),
        output: &CodesOf,
        attributes: Vec<tract_onnx::pb::AttributeProto>,
    ) {
        let outputs = quantized.product.outputs;
        let bias = weights::bias(&quantized.bias, input.affine.0, &quantized.weights.scales);
        let [codes, scales, zeros, biases] =
            ["weights", "weight_scales", "weight_zero_points", "bias"].map(|part| format!("{name}.{part}"));
        let raw = quantized.weights.codes.iter().map(|c| c.cast_unsigned()).collect();
        self.constants.push(tensor(&codes, DataType::Int8, dims, raw));
        self.constants.push(float_tensor(&scales, &[outputs], &quantized.weights.scales));
        self.constants.push(tensor(&zeros, DataType::Int8, &[outputs], vec![0; outputs]));
        let raw = bias.iter().flat_map(|b| b.to_le_bytes()).collect();
        self.constants.push(tensor(&biases, DataType::Int32, &[outputs], raw));
        let inputs = [
            input_name,
            &input.scale,
            &input.zero_point,
            &codes,
            &scales,
            &zeros,
            &output.scale,
            &output.zero_point,
            &biases,
        ];
        self.nodes.push(node("QLinearConv", name, &inputs, &output.name, attributes));
    }

    /// A fully connected layer as a convolution whose window is its whole input.
    fn whole_window(&mut self, name: &str, quantized: &Quantized, input: &CodesOf, mut output: CodesOf) -> CodesOf {
        let outputs = quantized.product.outputs;
        let inputs = quantized.weights.codes.len() / outputs;
        let (image, [channels, height, width]) = match &input.image {
            Some((image, shape)) if shape.iter().product::<usize>() == inputs => (image.clone(), *shape),
            _ => (self.reshape(&format!("{name}.image"), &input.name, &[1, inputs as i64, 1, 1]), [inputs, 1, 1]),
        };
        let flat = output.name.clone();
        output.name = format!("{flat}.image");
        let window = integer_list("kernel_shape", vec![height as i64, width as i64]);
        self.convolution(name, quantized, &[outputs, channels, height, width], (input, &image), &output, vec![window]);
        self.nodes.push(node("Flatten", &format!("{name}.flatten"), &[&output.name], &flat, vec![integer("axis", 1)]));
        output.image = Some((output.name, [outputs, 1, 1]));
        output.name = flat;
        output
    }

    fn reshape(&mut self, name: &str, input: &str, shape: &[i64]) -> String {
        let constant = format!("{name}.shape");
        let raw = shape.iter().flat_map(|d| d.to_le_bytes()).collect();
        self.constants.push(tensor(&constant, DataType::Int64, &[shape.len()], raw));
        self.nodes.push(node("Reshape", name, &[input, &constant], &format!("{name}.codes"), vec![]));
        format!("{name}.codes")
    }

    fn matrix(&mut self, name: &str, quantized: &Quantized, input: &CodesOf, output: CodesOf) -> CodesOf {
        let outputs = quantized.product.outputs;
        let inputs = quantized.weights.codes.len() / outputs;
        let [codes, scales, zeros] =
            ["weights", "weight_scales", "weight_zero_points"].map(|part| format!("{name}.{part}"));
        let by_rows = |i: usize| quantized.weights.codes[i % outputs * inputs + i / outputs].cast_unsigned();
        let raw = (0..inputs * outputs).map(by_rows).collect();
        self.constants.push(tensor(&codes, DataType::Int8, &[inputs, outputs], raw));
        self.constants.push(float_tensor(&scales, &[outputs], &quantized.weights.scales));
        self.constants.push(tensor(&zeros, DataType::Int8, &[outputs], vec![0; outputs]));
        let operands = [
            input.name.as_str(),
            &input.scale,
            &input.zero_point,
            &codes,
            &scales,
            &zeros,
            &output.scale,
            &output.zero_point,
        ];
        self.nodes.push(node("QLinearMatMul", name, &operands, &output.name, vec![]));
        output
    }
}

/// Nodes whose results nobody reads.
fn drop_unread_nodes(graph: &mut GraphProto) {
    let mut read: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut nodes = Vec::new();
    while let Some(node) = graph.node.pop() {
        if node.output.iter().any(|o| read.contains(o)) {
            read.extend(node.input.iter().cloned());
            nodes.push(node);
        }
    }
    nodes.reverse();
    graph.node = nodes;
}
