//! Files that are damaged, foreign, oversized or made to hurt, and observations that are none: an error that says
//! what is wrong, and nothing else.

use oto_policy::{Metadata, PolicyError, load, load_each, load_file, load_folder, scripted};
use oto_proto::Space;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

fn zip(method: CompressionMethod, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn refusal(model: &[u8]) -> PolicyError {
    load(model, &Metadata::default()).map(drop).expect_err("it should be refused")
}

fn boxed(low: &[f32], high: &[f32]) -> Space {
    Space::Box { low: low.to_vec(), high: high.to_vec() }
}

const SOUND: [&str; 4] = [
    "teacher_ppo_cartpole_v1.onnx",
    "teacher_ppo_cartpole_v1.safetensors",
    "teacher_ppo_cartpole_v1.policy.pth",
    "teacher_sac_inverted_pendulum_v5.policy.pth",
];

#[test]
fn truncated_files() {
    for name in SOUND {
        let whole = fixture(name);
        // Every length near both ends, where the structure is, and some between.
        let lengths = (0..200).chain((200..whole.len()).step_by(997)).chain(whole.len() - 200..whole.len());
        for length in lengths {
            refusal(&whole[..length]);
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    // Most damage hits a weight, which nothing can tell; what matters is that this returns.
    let metadata = Metadata { action_space: Some(boxed(&[-3.0], &[3.0])), ..Metadata::default() };
    let mut rng = oto_env::rng::Rng::new(1);
    for name in SOUND {
        let whole = fixture(name);
        for _ in 0..300 {
            let mut damaged = whole.clone();
            for _ in 0..1 + rng.below(4) {
                // Half of the hits in the first or last kilobyte, where the structure is.
                let at = match rng.below(4) {
                    0 => rng.below(1024) as usize,
                    1 => whole.len() - 1 - rng.below(1024) as usize,
                    _ => rng.below(whole.len() as u32) as usize,
                };
                damaged[at] = rng.below(256) as u8;
            }
            if let Ok(mut policy) = load(&damaged, &metadata) {
                let observations = vec![0.5; 3 * policy.observation_space().width()];
                drop(policy.act(&observations, 3, &mut Vec::new()));
            }
        }
    }
}

#[test]
fn foreign_files() {
    for bytes in [&b""[..], b"x", b"{\"kind\": \"policy\"}", b"\x89PNG\r\n\x1a\n", &[0; 100], &[0xff; 100]] {
        let error = refusal(bytes);
        let known = matches!(error, PolicyError::UnknownFormat(_) | PolicyError::Malformed { .. });
        assert!(known, "{error}");
    }
    assert!(matches!(refusal(b"\x80\x02\x8a\nl\xfc"), PolicyError::Unsupported(_)), "torch.save of old");
    let stranger = zip(CompressionMethod::Stored, &[("word/document.xml", b"<xml/>")]);
    assert!(refusal(&stranger).to_string().contains("data.pkl"));
    let large = vec![0; 64 * 1024 * 1024 + 1];
    assert!(matches!(refusal(&large), PolicyError::TooLarge { .. }));
}

#[test]
fn onnx_graphs_made_to_hurt() {
    let error = |name: &str| {
        let error = load_file(&data(name)).map(drop).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        match error {
            PolicyError::In { source, .. } => *source,
            other => panic!("{other}"),
        }
    };
    let names = |error: PolicyError, operator: &str| {
        assert!(
            matches!(&error, PolicyError::UnsupportedOperator { operator: found, .. } if found == operator)
        );
        assert!(error.to_string().contains(operator));
    };
    names(error("bad_random.onnx"), "RandomNormalLike");
    let expand = error("bad_expand.onnx");
    assert!(matches!(&expand, PolicyError::Unsupported(reason) if reason.contains("Expand")), "{expand}");
    assert!(matches!(error("bad_constants.onnx"), PolicyError::TooLarge { .. }));
    assert!(matches!(error("bad_wide.onnx"), PolicyError::TooLarge { .. }));
    assert!(matches!(error("bad_dangling.onnx"), PolicyError::Malformed { .. }));
    let outside = error("bad_outside.onnx");
    assert!(matches!(outside, PolicyError::Malformed { .. }), "{outside}");
    assert!(matches!(error("bad_short.onnx"), PolicyError::Malformed { .. }));
}

/// A pickle of a dictionary with one tensor, `weight`, of this shape, strides and offset in a storage of its own.
fn pickle(shape: [u32; 2], strides: [u32; 2], offset: u32) -> Vec<u8> {
    let mut p = b"\x80\x02}X\x06\0\0\0weightctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage".to_vec();
    p.extend(b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\0\0\0cpuJ\x04\0\0\0tQJ");
    p.extend(offset.to_le_bytes());
    for pair in [shape, strides] {
        pair.iter().for_each(|n| p.extend([b"J".as_slice(), &n.to_le_bytes()].concat()));
        p.push(0x86);
    }
    p.extend(b"\x89NtRs.");
    p
}

fn archive(pickle: &[u8]) -> Vec<u8> {
    zip(CompressionMethod::Deflated, &[("a/data.pkl", pickle), ("a/data/0", &[0; 16])])
}

#[test]
fn pickles_made_to_hurt() {
    // The pickle itself is sound: it is the layout that is none.
    assert!(refusal(&archive(&pickle([2, 2], [2, 1], 0))).to_string().contains("known layout"));
    for (shape, strides, offset) in [
        ([2, 2], [2, 1], 1),
        ([2, 3], [2, 1], 0),
        ([2, 2], [i32::MAX as u32, 1], 0),
        ([1, 1], [1, 1], i32::MAX as u32),
    ] {
        assert!(
            refusal(&archive(&pickle(shape, strides, offset))).to_string().contains("within its storage")
        );
    }
    // Strides of zero make much of little.
    let broadcast = refusal(&archive(&pickle([1 << 16, 1 << 16], [0, 0], 0)));
    assert!(matches!(broadcast, PolicyError::TooLarge { .. }), "{broadcast}");
    // A tuple of itself twice, forty times over, would be a trillion values if references were copied.
    let nested = [b"\x80\x02)".as_slice(), &b"q\0h\0\x86".repeat(40), b"."].concat();
    assert!(refusal(&archive(&nested)).to_string().contains("dictionary"));
    // Whatever a pickle calls stays uncalled.
    let call = b"\x80\x02cos\nsystem\nX\x05\0\0\0false\x85R.";
    assert!(refusal(&archive(call)).to_string().contains("a pickled object of the class os.system"));
    for bad in [
        &b"."[..],
        b"\x80\x02(",
        b"t.",
        b"\x85.",
        b"u.",
        b"s.",
        b"R.",
        b"Q.",
        b"hx.",
        b"r\xff\xff\xff\xff.",
        b")r\xff\xff\xff\xff.",
        b"X\xff\xff\xff\xff",
        b"\x8a\xff",
        b"(((.",
        b"(e.",
        b"c",
        b"i",
        b"\x93.",
    ] {
        assert!(matches!(refusal(&archive(bad)), PolicyError::Malformed { .. }), "{bad:?}");
    }
}

/// Each reference is a few bytes, and would be a copy of a megabyte.
#[test]
fn pickles_that_name_much_with_one_long_text_are_refused() {
    let long = [&b"X"[..], &(1_u32 << 20).to_le_bytes(), &vec![b'x'; 1 << 20]].concat();
    let classes = [b"\x80\x02", &long[..], b"q\0", &b"h\0h\0\x93".repeat(100_000), b"."].concat();
    assert!(refusal(&archive(&classes)).to_string().contains("a name of 2097152 bytes"));
    let sound = pickle([2, 2], [2, 1], 0);
    let named = [&b"\x80\x02}"[..], &long, &sound[b"\x80\x02}X\x06\0\0\0weight".len()..]].concat();
    let error = refusal(&archive(&named)).to_string();
    assert!(error.contains("not as torch writes it") && error.len() < 200, "{error}");
    let many = [&b"\x80\x02}("[..], &b"K\0K\0".repeat(20_000), b"u."].concat();
    assert!(refusal(&archive(&many)).to_string().contains("at most 16384 tensors"));
}

#[test]
fn an_empty_layer_with_a_trillion_outputs_is_refused() {
    let header = br#"{"action_net.weight":{"dtype":"F32","shape":[1099511627776,0],"data_offsets":[0,0]}}"#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    assert!(refusal(&file).to_string().contains("action_net.weight is empty"));
}

#[test]
fn a_layer_that_would_make_gigabytes_of_a_run_is_refused() {
    let file = |hidden: usize| {
        let tensor = |name: &str, shape: &[usize], begin: usize| {
            let end = begin + 4 * shape.iter().product::<usize>();
            format!(
                r#""q_net.q_net.{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
            )
        };
        let tensors = [
            tensor("0.weight", &[hidden, 1], 0),
            tensor("2.weight", &[1, hidden], 4 * hidden),
            tensor("0.bias", &[hidden], 8 * hidden),
            tensor("2.bias", &[1], 12 * hidden),
        ]
        .join(",");
        let header = format!("{{{tensors}}}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; 12 * hidden + 4]].concat()
    };
    let known = Metadata {
        observation_space: Some(boxed(&[0.0], &[1.0])),
        action_space: Some(Space::Discrete { n: 1 }),
        activation: Some(oto_rl::mlp::Activation::Relu),
        ..Metadata::default()
    };
    load(&file(1 << 16), &known).map(drop).unwrap();
    let refused = load(&file((1 << 16) + 1), &known).map(drop).unwrap_err();
    assert!(matches!(refused, PolicyError::TooLarge { found: 65_537, .. }));
}

/// An actor needs each of its weights and biases; without one of them the file is refused, not answered by zeros.
#[test]
fn an_actor_that_lacks_a_tensor_is_refused() {
    for (file, parts) in [
        ("teacher_ppo_cartpole_v1", ["action_net.", "mlp_extractor.policy_net."]),
        ("teacher_sac_inverted_pendulum_v5", ["actor.mu.", "actor.latent_pi."]),
    ] {
        let known: Metadata = serde_json::from_slice(&fixture(&format!("{file}.json"))).unwrap();
        let bytes = fixture(&format!("{file}.safetensors"));
        load(&bytes, &known).map(drop).unwrap();
        let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let of_actor = |name: &&&str| parts.iter().any(|part| name.starts_with(part));
        let names = all.names();
        assert_eq!(names.iter().filter(of_actor).count(), 6);
        for name in names.iter().filter(of_actor) {
            let rest = all.tensors().into_iter().filter(|(other, _)| other != name);
            let lacking = safetensors::serialize(rest, None).unwrap();
            assert!(load(&lacking, &known).is_err(), "{file} without {name}");
        }
    }
}

#[test]
fn an_archive_that_swells_is_not_unpacked() {
    let zeros = vec![0; 80 << 20];
    let bomb = zip(CompressionMethod::Deflated, &[("policy.pth", &zeros), ("data", b"{}")]);
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(refusal(&bomb), PolicyError::TooLarge { .. }));
}

/// A Stable-Baselines3 model around this state dict.
fn model(pth: &str, record: &str) -> Vec<u8> {
    zip(CompressionMethod::Stored, &[("data", record.as_bytes()), ("policy.pth", &fixture(pth))])
}

#[test]
fn a_model_zip_brings_its_own_facts() {
    let record = r#"{"policy_kwargs": {":type:": "<class 'dict'>", "activation_fn": "<class 'torch.nn.modules.activation.ReLU'>"},
        "observation_space": {":type:": "<class 'gymnasium.spaces.box.Box'>", "low": "[-inf -inf\n -1. -inf]", "high": "[inf inf 1. inf]"},
        "action_space": {":type:": "<class 'gymnasium.spaces.box.Box'>", "low": "[-3.]", "high": "[3.]"}}"#;
    let sac = model("teacher_sac_inverted_pendulum_v5.policy.pth", record);
    let policy = load(&sac, &Metadata::default()).unwrap();
    assert_eq!(*policy.action_space(), boxed(&[-3.0], &[3.0]));
    let inf = f32::INFINITY;
    assert_eq!(*policy.observation_space(), boxed(&[-inf, -inf, -1.0, -inf], &[inf, inf, 1.0, inf]));
    let declared = Metadata { action_space: Some(boxed(&[-1.0], &[1.0])), ..Metadata::default() };
    let refusal = |declared| load(&sac, &declared).map(drop).unwrap_err().to_string();
    assert!(refusal(declared).contains("action_space is declared"));
    let declared = Metadata { activation: Some(oto_rl::mlp::Activation::Tanh), ..Metadata::default() };
    assert!(refusal(declared).contains("\"activation\" is Tanh"));
    let ppo = |record: &str| load(&model("teacher_ppo_cartpole_v1.policy.pth", record), &Metadata::default());
    assert!(ppo("{}").map(drop).unwrap_err().to_string().contains("declare observation_space"));
    assert!(matches!(ppo("{").map(drop), Err(PolicyError::Malformed { .. })));
    let spaces = r#""observation_space": {":type:": "<class 'gym.spaces.box.Box'>", "low": "[-1. -1. -1. -1.]", "high": "[1. 1. 1. 1.]"},
        "action_space": {":type:": "<class 'gym.spaces.discrete.Discrete'>", "n": 2}"#;
    assert_eq!(*ppo(&format!("{{{spaces}}}")).unwrap().action_space(), Space::Discrete { n: 2 });
    let relu = Metadata { activation: Some(oto_rl::mlp::Activation::Relu), ..Metadata::default() };
    let usual = load(&model("teacher_ppo_cartpole_v1.policy.pth", &format!("{{{spaces}}}")), &relu);
    assert!(usual.map(drop).unwrap_err().to_string().contains("leaves it at its algorithm's, Tanh"));
    let elu = format!(
        r#"{{{spaces}, "policy_kwargs": {{"activation_fn": "<class 'torch.nn.modules.activation.ELU'>"}}}}"#
    );
    assert!(ppo(&elu).map(drop).unwrap_err().to_string().contains("ELU"));
}

/// Its tensors look like those of a model that can be served.
#[test]
fn a_model_zip_whose_answers_would_be_wrong_is_refused_by_its_own_facts() {
    let ppo = |record: &str, metadata: &Metadata| {
        load(&model("teacher_ppo_cartpole_v1.policy.pth", record), metadata)
            .map(drop)
            .map_err(|e| e.to_string())
    };
    let space = |key: &str, name: &str, rest: &str| {
        let class = format!("gymnasium.spaces.{}.{name}", name.to_lowercase());
        format!(r#"{{"{key}": {{":type:": "<class '{class}'>" {rest}}}}}"#)
    };
    let image = r#""observation_space": {":type:": "<class 'gymnasium.spaces.box.Box'>", "dtype": "uint8", "_shape": [1, 2, 2], "low": "[[[0 0]\n [0 0]]]", "high": "[[[255 255]\n [255 255]]]"}"#;
    for (record, word) in [
        (space("action_space", "MultiDiscrete", r#", "nvec": "[1 1]""#), "MultiDiscrete"),
        (space("action_space", "MultiBinary", r#", "n": 2"#), "MultiBinary"),
        (space("observation_space", "Dict", ""), "Dict"),
        (r#"{"policy_class": {"__module__": "mine"}}"#.into(), "mine"),
        (
            r#"{"policy_kwargs": {"features_extractor_class": "<class 'mine.Extractor'>"}}"#.into(),
            "mine.Extractor",
        ),
        (format!("{{{image}}}"), "255"),
    ] {
        let refusal = ppo(&record, &Metadata::default()).unwrap_err();
        assert!(refusal.contains(word), "{record}: {refusal}");
    }
    let two = Metadata { action_space: Some(Space::Discrete { n: 2 }), ..Metadata::default() };
    let squashed = r#"{"policy_kwargs": {"squash_output": true}}"#;
    let declared = Metadata { observation_space: Some(boxed(&[-1.0; 4], &[1.0; 4])), ..two.clone() };
    assert!(ppo(squashed, &declared).unwrap_err().contains("squash_output"));
    ppo(&space("observation_space", "Dict", ""), &declared).unwrap();
    ppo(&space("observation_space", "MultiBinary", r#", "n": 4"#), &two).unwrap();
    ppo(&space("observation_space", "MultiDiscrete", r#", "nvec": "[2 2]""#), &two).unwrap();
    ppo(&format!(r#"{{{image}, "policy_kwargs": {{"normalize_images": false}}}}"#), &declared).unwrap();
}

/// Tensors alone show neither the bound of a mean nor a tanh behind it: what is taken for granted is said.
#[test]
fn what_tensors_do_not_show_about_exploration_is_told() {
    let spaces = Metadata { observation_space: Some(boxed(&[-1.0; 4], &[1.0; 4])), ..Metadata::default() };
    let spaces = Metadata { action_space: Some(boxed(&[-2.0], &[2.0])), ..spaces };
    let numbers: Vec<u8> = [0.25f32; 4].iter().flat_map(|x| x.to_le_bytes()).collect();
    let warnings = |log_std: &[usize], metadata: &Metadata| {
        let tensors =
            [("action_net.weight", &[1, 4][..], 4), ("action_net.bias", &[1], 1), ("log_std", log_std, 0)];
        let view = |(name, shape, count): (&'static str, &[usize], usize)| {
            let count = if count > 0 { count } else { shape.iter().product() };
            (name, TensorView::new(Dtype::F32, shape.to_vec(), &numbers[..4 * count]).unwrap())
        };
        let file = safetensors::serialize(tensors.map(view), None).unwrap();
        load(&file, metadata).unwrap().warnings().join(" ")
    };
    assert_eq!(warnings(&[1], &spaces), "");
    assert!(warnings(&[4, 1], &spaces).contains("squash_output"));
    assert_eq!(warnings(&[4, 1], &Metadata { squash_output: Some(false), ..spaces.clone() }), "");
    let explores = std::fs::read(data("sac_sde.safetensors")).unwrap();
    let declared = Metadata::read(&std::fs::read(data("sac_sde.json")).unwrap()).unwrap();
    assert!(load(&explores, &declared).unwrap().warnings().join(" ").contains("clip_mean"));
}

#[test]
fn metadata_that_contradict_or_lack() {
    let sac = fixture("teacher_sac_inverted_pendulum_v5.safetensors");
    assert!(refusal(&sac).to_string().contains("action_space"), "a tanh without a range");
    let ppo = fixture("teacher_ppo_cartpole_v1.onnx");
    let with = |observation_space, action_space| {
        let metadata = Metadata { observation_space, action_space, ..Metadata::default() };
        load(&ppo, &metadata).map(drop).map_err(|e| e.to_string())
    };
    assert!(with(None, Some(Space::Discrete { n: 2 })).is_ok());
    assert!(with(None, Some(Space::Discrete { n: 3 })).unwrap_err().contains("2 preferences"));
    assert!(with(None, Some(boxed(&[0.0], &[1.0]))).is_err());
    assert!(with(Some(boxed(&[0.0], &[1.0])), None).unwrap_err().contains("4 inputs"));
    for bad in [
        "",
        "[]",
        "{}",
        "{\"kind\": \"losses\"}",
        "{\"kind\":\"policy\",\"action_space\":{\"kind\":\"discrete\",\"n\":0}}",
    ] {
        assert!(matches!(Metadata::read(bad.as_bytes()), Err(PolicyError::Metadata(_))), "{bad}");
    }
    assert!(matches!(Metadata::read(&vec![b' '; 2 << 20]), Err(PolicyError::TooLarge { .. })));
    assert!(matches!(load_file(&data("absent.onnx")), Err(PolicyError::Read { .. })));
}

#[test]
fn a_folder_of_policies() {
    let folder = std::env::temp_dir().join(format!("oto-policies-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("noise.json", r#"{"kind":"policy","model":"scripted:random:3","env":"Pendulum-v1"}"#);
    write("other.json", r#"{"kind":"losses"}"#);
    std::fs::copy(data("dqn.safetensors"), folder.join("weights.bin")).unwrap();
    write("a.json", r#"{"kind":"policy","model":"weights.bin","env":"Acrobot-v1","activation":"relu"}"#);
    // Nobody will ever write into it.
    #[cfg(unix)]
    assert!(std::process::Command::new("mkfifo").arg(folder.join("pipe.json")).status().unwrap().success());
    let loaded = load_folder(&folder).unwrap();
    let names: Vec<_> = loaded.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["a", "noise"]);
    assert_eq!(loaded[0].metadata.action_space, Some(Space::Discrete { n: 3 }));
    assert_eq!(loaded[1].metadata.action_space, Some(boxed(&[-2.0], &[2.0])));
    // With a model of its name beside it, it is meant as metadata.
    #[cfg(unix)]
    {
        std::fs::copy(data("dqn.safetensors"), folder.join("pipe.safetensors")).unwrap();
        let error = load_folder(&folder).map(drop).unwrap_err().to_string();
        assert!(error.contains("pipe.json") && error.contains("not a regular file"), "{error}");
        std::fs::remove_file(folder.join("pipe.safetensors")).unwrap();
    }
    for (model, says) in
        [("../a.json", "beside it"), ("absent.onnx", "absent.onnx"), ("scripted:random", "observation_space")]
    {
        write("z.json", &format!("{{\"kind\":\"policy\",\"model\":\"{model}\"}}"));
        let error = load_folder(&folder).map(drop).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // A pipe, into which nobody will ever write, is no model; nor is one of NaN, which loads and answers nothing.
    #[cfg(unix)]
    {
        write("z.json", r#"{"kind":"policy","model":"pipe.json"}"#);
        let error = load_folder(&folder).map(drop).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
    let mut nan = std::fs::read(data("dqn.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(nan[..8].try_into().unwrap()) as usize;
    nan[header..].as_chunks_mut::<4>().0.iter_mut().for_each(|number| *number = f32::NAN.to_le_bytes());
    std::fs::write(folder.join("nan.bin"), nan).unwrap();
    write("z.json", r#"{"kind":"policy","model":"nan.bin","env":"Acrobot-v1","activation":"relu"}"#);
    write("y.json", r#"{"kind":"policy","model":"absent.onnx"}"#);
    let each = load_each(&folder).unwrap();
    let told: Vec<_> =
        each.iter().map(|one| one.as_ref().map_or_else(ToString::to_string, |l| l.name.clone())).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[2].contains("absent.onnx") && told[3].contains("not finite"), "{told:?}");
    std::fs::remove_file(folder.join("y.json")).unwrap();
    // What is no JSON is a slip where a model stands beside it, and somebody else's file where none does.
    write("z.json", r#"{"kind":"policy",}"#);
    assert_eq!(load_folder(&folder).unwrap().len(), 2);
    std::fs::copy(data("dqn.onnx"), folder.join("z.onnx")).unwrap();
    let error = load_folder(&folder).map(drop).unwrap_err().to_string();
    assert!(error.contains("z.json") && error.contains("line 1"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn observations_that_are_none() {
    for name in ["dqn.onnx", "dqn.safetensors"] {
        let mut policy = load_file(&data(name)).unwrap().policy;
        let mut actions = Vec::new();
        let wrong = policy.act(&[0.0; 11], 2, &mut actions).unwrap_err();
        assert!(matches!(wrong, PolicyError::Observations { rows: 2, width: 6, found: 11 }));
        assert!(matches!(policy.act(&[], usize::MAX, &mut actions), Err(PolicyError::Observations { .. })));
        for bad in [f32::NAN, f32::INFINITY] {
            let row = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, bad, 0.0, 0.0, 0.0, 0.0, 0.0];
            let error = policy.act(&row, 2, &mut actions);
            let named = matches!(error, Err(PolicyError::ObservationNotFinite { row: 1, component: 0, .. }));
            assert!(named, "{name}: {error:?}");
        }
        policy.act(&[], 0, &mut actions).unwrap();
        assert!(actions.is_empty());
    }
}

#[test]
fn discrete_observations_become_one_hot() {
    let known = Metadata {
        observation_space: Some(boxed(&[0.0; 6], &[1.0; 6])),
        action_space: Some(Space::Discrete { n: 3 }),
        activation: Some(oto_rl::mlp::Activation::Relu),
        ..Metadata::default()
    };
    let six = Metadata { observation_space: Some(Space::Discrete { n: 6 }), ..known.clone() };
    let bytes = std::fs::read(data("dqn.safetensors")).unwrap();
    let mut discrete = load(&bytes, &six).unwrap();
    let mut plain = load(&bytes, &known).unwrap();
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    discrete.act(&[2.0, 5.0], 2, &mut found).unwrap();
    plain.act(&[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 2, &mut expected).unwrap();
    assert_eq!(found, expected);
    for bad in [6.0, -1.0, 0.5, f32::NAN] {
        assert!(matches!(
            discrete.act(&[bad], 1, &mut found),
            Err(PolicyError::ObservationIndex { row: 0, .. }
                | PolicyError::ObservationNotFinite { row: 0, .. })
        ));
    }
}

#[test]
fn scripted_policies_stay_in_their_space() {
    let inf = f32::INFINITY;
    let action = boxed(&[-2.0, -inf, 0.0, -inf], &[2.0, inf, inf, -1.0]);
    let make = |name: &str| scripted(name, boxed(&[0.0], &[1.0]), action.clone());
    let draw = |name: &str| {
        let mut actions = Vec::new();
        make(name).unwrap().act(&[0.0; 500], 500, &mut actions).unwrap();
        actions
    };
    let actions = draw("scripted:random");
    let fits = |row: &[f32]| row[0].abs() <= 2.0 && row[2] >= 0.0 && row[3] <= -1.0;
    assert!(actions.iter().all(|a| a.is_finite()) && actions.chunks(4).all(fits));
    let mean = actions.iter().step_by(4).sum::<f32>() / 500.0;
    assert!(mean.abs() < 0.2, "uniform over -2 to 2, got the mean {mean}");
    assert_eq!(actions, draw("scripted:random:0"));
    assert_ne!(actions, draw("scripted:random:1"));
    assert_eq!(draw("scripted:constant:-0.5")[..4], [-0.5, -0.5, 0.0, -1.0]);
    for unknown in ["random", "scripted:", "scripted:random:x", "scripted:constant:NaN", "scripted:best"] {
        assert!(matches!(make(unknown).map(drop), Err(PolicyError::UnknownScript(_))), "{unknown}");
    }
    let choice = |name: &str| scripted(name, boxed(&[0.0], &[1.0]), Space::Discrete { n: 3 });
    assert!(choice("scripted:constant:2").is_ok() && choice("scripted:constant:3").is_err());
    let outputs = choice("scripted:constant:2").unwrap().outputs(&[0.0; 2], 2).unwrap();
    assert_eq!(
        (outputs[0].shape.as_slice(), outputs[0].values.as_slice()),
        ([2].as_slice(), [2.0, 2.0].as_slice())
    );
}
