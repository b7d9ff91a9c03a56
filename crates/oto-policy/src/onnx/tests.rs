//! Which graphs are plain networks, which are not, and that both give what tract gives.

use super::*;
use crate::load_file;
use std::path::PathBuf;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};

fn node(operation: &str, inputs: &[&str], output: &str, attribute: &[(&str, i64)]) -> NodeProto {
    let int = |(name, i): &(&str, i64)| AttributeProto {
        name: (*name).into(),
        r#type: AttributeType::Int as i32,
        i: *i,
        ..Default::default()
    };
    NodeProto {
        op_type: operation.into(),
        name: output.into(),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: vec![output.into()],
        attribute: attribute.iter().map(int).collect(),
        ..Default::default()
    }
}

fn with_float(mut node: NodeProto, name: &str, f: f32) -> NodeProto {
    let r#type = AttributeType::Float as i32;
    node.attribute.push(AttributeProto { name: name.into(), r#type, f, ..Default::default() });
    node
}

/// Constants that every graph here has, of which it uses some.
fn constants() -> Vec<TensorProto> {
    let some = |count: usize, scale: f32| (0..count).map(|i| scale * (1.0 + i as f32 * 1.7).sin()).collect();
    let tensor = |name: &str, dims: &[i64], float_data: Vec<f32>| TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        float_data,
        ..Default::default()
    };
    vec![
        tensor("w43", &[4, 3], some(12, 1.0)),
        tensor("w34", &[3, 4], some(12, 0.7)),
        tensor("w33", &[3, 3], some(9, 1.1)),
        tensor("w42", &[4, 2], some(8, 0.9)),
        tensor("huge", &[3, 3], vec![1e20; 9]),
        tensor("endless", &[3, 3], vec![f32::INFINITY; 9]),
        tensor("b4", &[4], some(4, 0.2)),
        tensor("b2", &[2], some(2, 0.3)),
        tensor("row", &[1, 3], vec![0.5, -0.25, 2.0]),
        tensor("std", &[3], vec![0.5, 2.0, 4.0]),
        tensor("column", &[3, 1], vec![1.0, 2.0, 3.0]),
        tensor("deep", &[1, 1, 3], vec![1.0, 2.0, 3.0]),
        tensor("bias3", &[3], vec![0.5, -0.25, 2.0]),
        tensor("zeros", &[3], vec![1.0, 0.0, 1.0]),
        tensor("one", &[], vec![1.0]),
        tensor("minus", &[], vec![-1.0]),
    ]
}

/// A graph from `obs`, rows of three numbers, to the last node's output.
fn model(nodes: &[NodeProto]) -> ModelProto {
    let size = |value| Dimension { value: Some(value), ..Default::default() };
    let dim = vec![size(dimension::Value::DimParam("batch".into())), size(dimension::Value::DimValue(3))];
    let tensor =
        type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    let value = Some(type_proto::Value::TensorType(tensor));
    let info = |name: &str, r#type| ValueInfoProto { name: name.into(), r#type, ..Default::default() };
    let graph = GraphProto {
        node: nodes.to_vec(),
        initializer: constants(),
        input: vec![info("obs", Some(TypeProto { value, ..Default::default() }))],
        output: vec![info(&nodes[nodes.len() - 1].output[0], None)],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { version: 17, ..Default::default() }];
    ModelProto { ir_version: 8, graph: Some(graph), opset_import, ..Default::default() }
}

/// What is chosen among, if the graph ends in an index.
fn choices(n: u32) -> Metadata {
    Metadata { action_space: Some(Space::Discrete { n }), ..Metadata::default() }
}

fn policy(nodes: &[NodeProto]) -> Onnx {
    let chooses = nodes.iter().any(|node| node.op_type == "ArgMax");
    let metadata = if chooses { choices(3) } else { Metadata::default() };
    Onnx::of(&model(nodes), &metadata).unwrap()
}

/// What a policy does for these observations.
fn actions(policy: &mut Onnx, observations: &[f32]) -> Result<Vec<f32>, String> {
    let (mut actions, rows) = (Vec::new(), observations.len() / policy.input.width);
    policy.act(observations, rows, &mut actions).map_err(|e| e.to_string())?;
    Ok(actions)
}

/// The same as a network and as tract alone has it.
fn alike(mut policy: Onnx, name: &str) {
    let mut rng = Rng::new(9);
    for size in [1e-6, 0.1, 1.0, 10.0] {
        let observations: Vec<f32> =
            (0..40 * policy.input.width).map(|_| (size * rng.normal()) as f32).collect();
        let plain = policy.plain.take();
        let expected = actions(&mut policy, &observations).unwrap();
        policy.plain = plain;
        for (a, b) in actions(&mut policy, &observations).unwrap().iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0) * size.max(1.0) as f32, "{name}: {a} {b}");
        }
    }
}

#[test]
fn teachers_that_are_plain_networks_are_run_as_such() {
    let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let onnx = |folder: &str, name: &str| {
        let path = crate_folder.join(folder).join(name);
        let metadata = std::fs::read(path.with_extension("json")).unwrap();
        let model = std::fs::read(path.with_extension("onnx")).unwrap();
        Onnx::new(&model, &Metadata::read(&metadata).unwrap()).unwrap()
    };
    for name in [
        "ppo_cartpole_v1",
        "ppo_cartpole_v1_early",
        "ppo_mobile_lte",
        "sac_inverted_pendulum_v5",
        "sac_pendulum_v1",
    ] {
        let policy = onnx("../../tests/fixtures", &format!("teacher_{name}"));
        assert!(policy.plain.is_some(), "{name}");
        alike(policy, name);
    }
    for name in
        ["ars", "ars_linear", "dqn", "ppo_continuous", "ppo_linear", "ppo_relu", "sac", "sac_sde", "td3"]
    {
        let policy = onnx("tests/data", name);
        assert!(policy.plain.is_some(), "{name}");
        alike(policy, name);
    }
    for name in ["qrdqn", "image"] {
        assert!(onnx("tests/data", name).plain.is_none(), "{name}");
    }
    // From a file, with everything around it, it is the same.
    let loaded = load_file(&crate_folder.join("tests/data/sac.onnx")).unwrap();
    assert_eq!(loaded.policy.action_space().width(), 2);
}

#[test]
fn rows_of_known_steps_are_plain_networks() {
    let graphs: &[(&str, &[NodeProto])] = &[
        ("no bias", &[node("Gemm", &["obs", "w34"], "action", &[("transB", 0)])]),
        ("an empty name for a bias", &[node("Gemm", &["obs", "w34", ""], "action", &[])]),
        (
            "normalised observations",
            &[
                node("Sub", &["obs", "row"], "centred", &[]),
                node("Div", &["centred", "std"], "scaled", &[]),
                node("Clip", &["scaled", "minus", "one"], "clipped", &[]),
                node("MatMul", &["clipped", "w34"], "product", &[]),
                node("Add", &["b4", "product"], "sum", &[]),
                node("Relu", &["sum"], "hidden", &[]),
                node("Tanh", &["hidden"], "action", &[]),
            ],
        ),
        (
            "what changes nothing",
            &[
                node("Flatten", &["obs"], "flat", &[]),
                node("Identity", &["flat"], "same", &[]),
                node("Cast", &["same"], "float", &[("to", DataType::Float as i64)]),
                node("Gemm", &["float", "w43", "b4"], "action", &[("transB", 1)]),
            ],
        ),
        (
            "a choice that is cast",
            &[
                node("Clip", &["obs", "", "one"], "low", &[]),
                node("Mul", &["std", "low"], "scaled", &[]),
                node("ArgMax", &["scaled"], "index", &[("axis", -1), ("keepdims", 1)]),
                node("Cast", &["index"], "action", &[("to", DataType::Int32 as i64)]),
            ],
        ),
    ];
    for (name, nodes) in graphs {
        let policy = policy(nodes);
        assert!(policy.plain.is_some(), "{name}");
        alike(policy, name);
    }
}

#[test]
fn what_is_no_row_of_known_steps_stays_with_tract() {
    let layer = node("Gemm", &["obs", "w33"], "layer", &[]);
    let ends = |middle: NodeProto| vec![layer.clone(), middle];
    let graphs: Vec<(&str, Vec<NodeProto>)> = vec![
        ("a branch", ends(node("Add", &["obs", "layer"], "action", &[]))),
        ("a value twice", ends(node("Mul", &["layer", "layer"], "action", &[]))),
        ("an unknown operator", ends(node("Sigmoid", &["layer"], "action", &[]))),
        ("two inputs side by side", ends(node("Concat", &["layer", "obs"], "action", &[("axis", 1)]))),
        ("alpha", vec![with_float(node("Gemm", &["obs", "w34", "b4"], "action", &[]), "alpha", 0.5)]),
        ("beta", vec![with_float(node("Gemm", &["obs", "w34", "b4"], "action", &[]), "beta", 2.0)]),
        ("the other way round", ends(node("Sub", &["row", "layer"], "action", &[]))),
        ("one through it", ends(node("Div", &["row", "layer"], "action", &[]))),
        ("a quotient by zero", ends(node("Div", &["layer", "zeros"], "action", &[]))),
        (
            "weights that may overflow",
            vec![
                node("Gemm", &["obs", "huge"], "first", &[]),
                node("Gemm", &["first", "huge"], "action", &[]),
            ],
        ),
        ("weights without end", vec![node("Gemm", &["obs", "endless"], "action", &[])]),
        (
            "constants made of constants",
            vec![
                node("Add", &["w34", "b4"], "weights", &[]),
                node("MatMul", &["obs", "weights"], "action", &[]),
            ],
        ),
        (
            "numbers after a choice",
            vec![
                node("ArgMax", &["obs"], "index", &[("axis", 1), ("keepdims", 1)]),
                node("Cast", &["index"], "number", &[("to", DataType::Float as i64)]),
                node("Mul", &["number", "one"], "action", &[]),
            ],
        ),
    ];
    for (name, nodes) in graphs {
        let mut policy = policy(&nodes);
        assert!(policy.plain.is_none(), "{name}");
        // Whatever it is, tract answers for it.
        let answer = actions(&mut policy, &[0.5, -0.25, 1.0]);
        assert!(
            answer.is_ok() || name.contains("zero") || name.contains("end") || name.contains("overflow"),
            "{name}: {answer:?}"
        );
    }
    for (name, node) in [
        ("turned observations", node("Gemm", &["obs", "w33", ""], "action", &[("transA", 1)])),
        ("a constant beside the columns", node("Add", &["obs", "column"], "action", &[])),
        ("a constant that adds a dimension", node("Add", &["obs", "deep"], "action", &[])),
        ("weights that do not fit", node("MatMul", &["obs", "w42"], "action", &[])),
        ("a choice among rows", node("ArgMax", &["obs"], "action", &[])),
    ] {
        let graph = model(&[node]).graph.unwrap();
        assert!(Plain::new(&graph, "action", 3).is_none(), "{name}");
    }
    let mut twice =
        model(&[node("Relu", &["obs"], "x", &[]), node("Tanh", &["x"], "action", &[])]).graph.unwrap();
    assert!(Plain::new(&twice, "action", 3).is_some());
    twice.node.insert(0, node("Neg", &["obs"], "x", &[]));
    assert!(Plain::new(&twice, "action", 3).is_none(), "a name that stands for two things");
}

#[test]
fn a_network_that_differs_from_tract_is_not_used() {
    let nodes = [node("Gemm", &["obs", "w34", "b4"], "action", &[])];
    let policy = policy(&nodes);
    let with_bias = |change: f32| {
        let mut proto = model(&nodes).graph.unwrap();
        let bias = proto.initializer.iter_mut().find(|tensor| tensor.name == "b4").unwrap();
        bias.float_data[2] += change;
        Plain::new(&proto, "action", 3).unwrap()
    };
    assert!(policy.graph.agrees(&mut with_bias(0.0), &policy.action));
    assert!(!policy.graph.agrees(&mut with_bias(1e-4), &policy.action));
    let nodes = [
        node("Identity", &["obs"], "same", &[]),
        node("ArgMax", &["same"], "action", &[("axis", 1), ("keepdims", 0)]),
    ];
    let policy = Onnx::of(&model(&nodes), &choices(3)).unwrap();
    let mut other =
        Plain::new(&model(&[node("Mul", &["obs", "std"], "action", &[])]).graph.unwrap(), "action", 3)
            .unwrap();
    other.chooses = true;
    assert!(policy.plain.is_some() && !policy.graph.agrees(&mut other, &policy.action));
}

#[test]
fn nan_infinity_and_overflow_are_answered_as_tract_answers_them() {
    let nodes = [
        node("Gemm", &["obs", "w34", "b4"], "first", &[]),
        node("Relu", &["first"], "hidden", &[]),
        node("Gemm", &["hidden", "w43"], "last", &[]),
        node("Tanh", &["last"], "action", &[]),
    ];
    let mut policy = policy(&nodes);
    let mut plain = policy.plain.take();
    for observation in [
        [f32::NAN, 0.0, 0.0],
        [0.0, f32::INFINITY, 0.0],
        [0.0, 0.0, f32::NEG_INFINITY],
        [f32::MAX, f32::MAX, f32::MAX],
        [f32::MAX, -f32::MAX, f32::MAX],
        [1e38, -3e38, 2e38],
        [1e30, -1e30, 1e-30],
        [f32::MIN_POSITIVE, 0.0, -0.0],
    ] {
        let expected = actions(&mut policy, &observation);
        policy.plain = plain.take();
        let found = actions(&mut policy, &observation);
        plain = policy.plain.take();
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{observation:?}");
            }
            (found, expected) => assert_eq!(found, expected, "{observation:?}"),
        }
    }
    assert!(!plain.unwrap().reaches(&[f32::MAX]));
}

/// What tract would allocate for a shape that is computed, or a constant, is not known here; another value's shape is.
#[test]
fn what_is_made_to_a_shape_has_the_shape_of_another_value() {
    let spread = |from: &str, to: &str| node("Expand", &[from, to], "action", &[]);
    let shape = |of: &str| node("Shape", &[of], "shape", &[]);
    let load = |nodes: &[NodeProto]| {
        Onnx::of(&model(nodes), &Metadata::default()).map(drop).map_err(|e| e.to_string())
    };
    load(&[shape("obs"), spread("row", "shape")]).unwrap();
    load(&[
        shape("obs"),
        node("ConstantOfShape", &["shape"], "zero", &[]),
        node("Add", &["obs", "zero"], "action", &[]),
    ])
    .unwrap();
    let product = node("Mul", &["shape", "shape"], "large", &[]);
    for nodes in [
        vec![shape("obs"), product, spread("row", "large")],
        vec![node("Shape", &["obs"], "shape", &[("start", 1)]), spread("obs", "shape")],
        vec![spread("obs", "std")],
        vec![node("ConstantOfShape", &["std"], "action", &[])],
    ] {
        let refusal = load(&nodes).unwrap_err();
        // A shape of float32 is none.
        assert!(refusal.contains("not another value's") || refusal.contains("for float32"), "{refusal}");
    }
}

#[test]
fn a_name_that_stands_for_two_values_is_refused() {
    let graph = model(&[node("Relu", &["obs"], "x", &[]), node("Tanh", &["x"], "x", &[])]);
    assert!(Onnx::of(&graph, &Metadata::default()).map(drop).unwrap_err().to_string().contains("two values"));
    let graph = model(&[node("Relu", &["obs"], "w33", &[])]);
    assert!(Onnx::of(&graph, &Metadata::default()).is_err());
}

#[test]
fn outputs_that_need_an_unknown_operator_are_left_out_beside_an_answer_only() {
    let beside = |kept: &str| {
        let mut proto = model(&[node("Relu", &["obs"], kept, &[]), node("GRU", &["obs"], "other", &[])]);
        let graph = proto.graph.as_mut().unwrap();
        graph.output.push(ValueInfoProto { name: kept.into(), ..Default::default() });
        Onnx::of(&proto, &Metadata::default())
    };
    let policy = beside("q_values").unwrap();
    assert_eq!(
        (policy.graph.outputs.as_slice(), policy.action),
        (&["q_values".to_owned()][..], Space::Discrete { n: 3 })
    );
    assert!(matches!(beside("values").map(drop), Err(PolicyError::UnsupportedOperator { .. })));
    let needed = model(&[node("GRU", &["obs"], "h", &[]), node("Relu", &["h"], "action", &[])]);
    assert!(matches!(Onnx::of(&needed, &choices(3)).map(drop), Err(PolicyError::UnsupportedOperator { .. })));
}

#[test]
fn several_indices_for_one_observation_are_no_action() {
    let index = DataType::Int64 as i64;
    let graph = model(&[node("Cast", &["obs"], "action", &[("to", index)])]);
    let refusal = Onnx::of(&graph, &choices(4)).map(drop).unwrap_err().to_string();
    assert!(refusal.contains("3 indices"), "{refusal}");
    let one = [
        node("MatMul", &["obs", "column"], "number", &[]),
        node("Cast", &["number"], "action", &[("to", index)]),
    ];
    let mut policy = Onnx::of(&model(&one), &choices(4)).unwrap();
    assert_eq!(actions(&mut policy, &[1.0, 1.0, 0.0, 0.0, 0.0, 0.5]), Ok(vec![3.0, 1.0]));
    assert!(Onnx::of(&model(&one), &Metadata::default()).is_err(), "of how many choices?");
}

#[test]
fn a_graph_for_a_fixed_number_of_rows_is_read_if_it_can_take_others() {
    let fixed = |nodes: &[NodeProto]| {
        let mut proto = model(nodes);
        let graph = proto.graph.as_mut().unwrap();
        let Some(type_proto::Value::TensorType(tensor)) = &mut graph.input[0].r#type.as_mut().unwrap().value
        else {
            unreachable!("an input is a tensor");
        };
        tensor.shape.as_mut().unwrap().dim[0].value = Some(dimension::Value::DimValue(2));
        let shape = TensorProto {
            name: "shape".into(),
            dims: vec![2],
            data_type: DataType::Int64 as i32,
            int64_data: vec![2, 3],
            ..Default::default()
        };
        graph.initializer.push(shape);
        Onnx::of(&proto, &Metadata::default()).map(drop).map_err(|e| e.to_string())
    };
    fixed(&[node("Relu", &["obs"], "action", &[])]).unwrap();
    let refusal = fixed(&[node("Reshape", &["obs", "shape"], "action", &[])]).unwrap_err();
    assert!(refusal.contains("takes 2 rows at a time"), "{refusal}");
}

#[test]
fn a_graph_that_ends_in_a_tanh_is_scaled_if_that_is_declared() {
    let nodes = [
        node("Gemm", &["obs", "w33"], "layer", &[]),
        node("Tanh", &["layer"], "unit", &[]),
        node("Identity", &["unit"], "action", &[]),
    ];
    let nodes = &nodes[..];
    let range = |low: f32, high: f32| Some(Space::Box { low: vec![low; 3], high: vec![high; 3] });
    let load = |action_space, unit_actions| {
        let metadata = Metadata { action_space, unit_actions, ..Metadata::default() };
        Onnx::of(&model(nodes), &metadata)
    };
    let warned = |policy: &Onnx| policy.warnings().iter().any(|warning| warning.contains("unit_actions"));
    let mut plain = load(range(-1.0, 1.0), None).unwrap();
    assert!(!warned(&plain));
    let numbers = actions(&mut plain, &[0.3, -0.2, 0.1]).unwrap();
    let mut told = load(range(-2.0, 2.0), None).unwrap();
    assert!(warned(&told) && actions(&mut told, &[0.3, -0.2, 0.1]).unwrap() == numbers);
    assert!(!warned(&load(range(-2.0, 2.0), Some(false)).unwrap()));
    let mut scaled = load(range(-1.0, 5.0), Some(true)).unwrap();
    assert!(!warned(&scaled));
    for (a, b) in actions(&mut scaled, &[0.3, -0.2, 0.1]).unwrap().iter().zip(&numbers) {
        assert!((a - (3.0 * b + 2.0)).abs() < 1e-5, "{a} {b}");
    }
    assert!(load(range(f32::NEG_INFINITY, 1.0), Some(true)).is_err());
}

#[test]
fn a_graph_is_run_on_many_rows_only_if_each_has_its_own_answer() {
    let most = |nodes: &[NodeProto]| policy(nodes).graph.most;
    let many = ROWS_PER_RUN;
    let apart: &[&[NodeProto]] = &[
        &[node("Gemm", &["obs", "w34", "b4"], "x", &[]), node("Softmax", &["x"], "action", &[])],
        &[node("Add", &["obs", "row"], "x", &[]), node("ArgMax", &["x"], "action", &[("axis", 1)])],
        &[node("Relu", &["obs"], "x", &[]), node("Concat", &["x", "obs"], "action", &[("axis", 1)])],
        &[node("Log", &["obs"], "x", &[]), node("Mul", &["x", "obs"], "action", &[])],
    ];
    for nodes in apart {
        assert_eq!(most(nodes), many, "{nodes:?}");
    }
    let mixed: &[&[NodeProto]] = &[
        &[node("Softmax", &["obs"], "action", &[("axis", 0)])],
        &[node("ReduceMean", &["obs"], "x", &[]), node("Sub", &["obs", "x"], "action", &[])],
        &[node("Transpose", &["obs"], "x", &[]), node("Transpose", &["x"], "action", &[])],
    ];
    for nodes in mixed {
        assert_eq!(most(nodes), 1, "{nodes:?}");
    }
}

#[test]
fn what_onnxruntime_answers_by_chance_is_refused_by_name() {
    let mut policy =
        policy(&[node("Log", &["obs"], "log", &[]), node("Hardmax", &["log"], "action", &[("axis", 1)])]);
    assert_eq!(actions(&mut policy, &[1.0, 2.0, 3.0]).unwrap(), [0.0, 0.0, 1.0]);
    let error = actions(&mut policy, &[-1.0, 2.0, 3.0]).unwrap_err();
    assert!(error.contains("Hardmax of NaN"), "{error}");
}

#[test]
fn weights_in_another_file_are_read_from_the_models_folder_alone() {
    use tract_onnx::pb::StringStringEntryProto;
    let place = std::env::temp_dir().join(format!("oto-onnx-external-{}", std::process::id()));
    let (folder, outside) = (place.join("models"), place.join("outside"));
    for path in [&folder, &folder.join("sub"), &outside] {
        std::fs::create_dir_all(path).unwrap();
    }
    let bytes: Vec<u8> = (0..12).flat_map(|at| (at as f32).to_le_bytes()).collect();
    let write = |path: PathBuf, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    write(folder.join("w.bin"), &bytes);
    write(folder.join("sub/w.bin"), &bytes);
    write(folder.join("short.bin"), &bytes[..44]);
    write(outside.join("w.bin"), &bytes);
    std::fs::File::create(folder.join("big.bin")).unwrap().set_len(1 << 40).unwrap();
    let load = |entries: &[(&str, &str)]| {
        let mut proto = model(&[node("MatMul", &["obs", "weights"], "action", &[])]);
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).into(),
            value: (*value).into(),
        };
        proto.graph.as_mut().unwrap().initializer.push(TensorProto {
            name: "weights".into(),
            dims: vec![3, 4],
            data_type: DataType::Float as i32,
            external_data: entries.iter().map(entry).collect(),
            data_location: Some(1),
            ..Default::default()
        });
        write(folder.join("model.onnx"), &prost::Message::encode_to_vec(&proto));
        load_file(&folder.join("model.onnx")).map(drop).map_err(|error| error.to_string())
    };
    let lies = |name: &str| load(&[("location", name)]);
    lies("w.bin").unwrap();
    lies("./w.bin").unwrap();
    load(&[("location", "w.bin"), ("offset", "0"), ("length", "48"), ("checksum", "0")]).unwrap();
    let absolute = outside.join("w.bin");
    for (entries, says) in [
        (&[("location", "../outside/w.bin")][..], "expected a file beside the model"),
        (&[("location", absolute.to_str().unwrap())], "expected a file beside the model"),
        (&[("location", "sub/w.bin")], "expected a file beside the model"),
        (&[("location", "..")], "expected a file beside the model"),
        (&[("location", "")], "expected a file beside the model"),
        (&[("offset", "0")], "expected a file beside the model"),
        (&[("location", "absent.bin")], "absent.bin"),
        (&[("location", "sub")], "is not a regular file"),
        (&[("location", "short.bin")], "does not hold the numbers of its shape"),
        (&[("location", "big.bin")], "bytes"),
        (&[("location", "w.bin"), ("length", "49")], "bytes 0 to 49"),
        (&[("location", "w.bin"), ("length", "44")], "does not hold the numbers of its shape"),
        (&[("location", "w.bin"), ("offset", "4")], "does not hold the numbers of its shape"),
        (&[("location", "w.bin"), ("offset", "-4")], "the offset \"-4\""),
        (
            &[("location", "w.bin"), ("offset", "18446744073709551615"), ("length", "48")],
            "bytes 18446744073709551615",
        ),
    ] {
        let error = load(entries).unwrap_err();
        assert!(error.contains(says), "{entries:?}: {error}");
    }
    #[cfg(unix)]
    {
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
        link("w.bin", "inside.bin");
        link(absolute.to_str().unwrap(), "outside.bin");
        link("/dev/zero", "endless.bin");
        link("circle.bin", "circle.bin");
        lies("inside.bin").unwrap();
        for name in ["outside.bin", "endless.bin"] {
            assert!(lies(name).unwrap_err().contains("a link out of the folder"), "{name}");
        }
        assert!(lies("circle.bin").unwrap_err().contains("circle.bin"));
    }
    std::fs::remove_dir_all(place).unwrap();
}

/// Values are onnxruntime's 1.32. Its variance is the mean of the squares less the square of the mean, so that a group of large numbers
/// that are alike shows its rounding.
#[test]
fn normalisations_are_onnxruntimes_for_numbers_of_any_size() {
    let mut proto = model(&[
        node("Unsqueeze", &["obs", "last"], "channels", &[]),
        with_float(
            node("GroupNormalization", &["channels", "std", "bias3"], "normal", &[("num_groups", 1)]),
            "epsilon",
            1e-5,
        ),
        node("Flatten", &["normal"], "action", &[]),
    ]);
    proto.opset_import[0].version = 21;
    let graph = proto.graph.as_mut().unwrap();
    graph.initializer.push(TensorProto {
        name: "last".into(),
        dims: vec![1],
        data_type: DataType::Int64 as i32,
        int64_data: vec![-1],
        ..Default::default()
    });
    let mut grouped = Onnx::of(&proto, &Metadata::default()).unwrap();
    let mut layer =
        policy(&[node("LayerNormalization", &["obs", "std", "bias3"], "action", &[("axis", -1)])]);
    for (at, observation) in OBSERVATIONS.iter().enumerate() {
        let near = |found: &[f32], expected: &[f32], what: &str| {
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
            assert!(
                found.iter().zip(expected).all(near),
                "{what} {observation:?}: {found:?}, expected {expected:?}"
            );
        };
        for (policy, expected, what) in [
            (&mut grouped, &GROUPED[at], "GroupNormalization"),
            (&mut layer, &LAYER[at], "LayerNormalization"),
        ] {
            match actions(policy, observation) {
                Ok(found) => near(&found, expected, what),
                // It is NaN, or in a sum of another order it would be.
                Err(error) => assert!(expected[0].is_nan(), "{what} {observation:?}: {error}"),
            }
        }
    }
    for observation in [[f32::INFINITY, 0.0, 1.0], [f32::NAN, 0.0, 1.0]] {
        assert!(actions(&mut layer, &observation).is_err() && actions(&mut grouped, &observation).is_err());
    }
}

const OBSERVATIONS: [[f32; 3]; 9] = [
    [0.5, -0.25, 1.0],
    [9666.5, 9100.25, 9812.75],
    [100.5, 101.25, 99.75],
    [3e18, -1e18, 2e18],
    [3e38, 2e38, 1e38],
    [3e38, 3e38, 3e38],
    [1e30, -3e30, 2e37],
    [-3.4e38, 3.4e38, 3.4e38],
    [3.0, 3.0, 3.0],
];
const NONE: [f32; 3] = [f32::NAN; 3];
const GROUPED: [[f32; 3]; 9] = [
    [0.581_109_17, -2.845_493_3, 6.542_114],
    [0.727_811_3, -3.024_416, 5.726_341_7],
    [0.5, 2.199_457, -2.898_913_9],
    [0.990_290_34, -2.995_625_7, 3.568_929_2],
    NONE,
    NONE,
    NONE,
    NONE,
    [0.5, -0.25, 2.0],
];
const LAYER: [[f32; 3]; 9] = [
    [0.581_109_17, -2.845_493_3, 6.542_114],
    [0.727_819_3, -3.024_513_5, 5.726_473],
    [0.5, 2.199_457, -2.898_913_9],
    [0.990_290_4, -2.995_626, 3.568_929_4],
    NONE,
    NONE,
    [0.5, -0.25, 2.0],
    NONE,
    [0.5, -0.25, 2.0],
];
