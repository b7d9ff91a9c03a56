//! Writes the true encodings of every corpus: `cargo run --release -p oto-tests --example fuzz_seeds`. What was found stays as it is.

#[allow(dead_code, unused_imports)] // Few of them are needed here.
#[path = "src/targets/mod.rs"]
mod targets;

use oto_data::Dataset;
use oto_env::Space;
use oto_proto::gradients::write_gradients;
use oto_proto::logits::write_logits;
use oto_proto::weights::{write_complete, write_delta};
use oto_proto::{
    Action, ActionFormat, BatchId, Dtype, Encoding, Flags, Formats, Ids, Place, RowFormat, StateFormat,
    Transition, TransitionFormat, message,
};
use oto_server::dataset::{Submission, fuzz};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Written = Result<(), Box<dyn Error>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) -> Written {
    let folder = root().join("tests/fuzz/corpus").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

/// Copies of files that lie in the repository.
fn copies(target: &str, folder: &str, names: &[&str]) -> Written {
    names.iter().try_for_each(|name| put(target, name, fs::read(root().join(folder).join(name))?))
}

fn main() -> Written {
    frames()?;
    actors()?;
    messages()?;
    json()?;
    copies(
        "onnx",
        "crates/oto-policy/tests/data",
        &["ars_linear.onnx", "dqn.onnx", "image.onnx", "sac.onnx"],
    )?;
    let own = ["dqn.safetensors", "ppo_linear.safetensors", "qrdqn.safetensors", "sac_sde.safetensors"];
    copies("safetensors", "crates/oto-policy/tests/data", &own)?;
    archives()?;
    datasets()?;
    submissions()?;
    students()?;
    bridges()?;
    programs()?;
    operators()
}

/// What programs ask that are no students.
fn programs() -> Written {
    let real = r#"{"id":"7","inputs":[{"name":"observation","shape":[2,2],"datatype":"FP32","data":[[0.5,-1],[1e-3,2]]}]}"#;
    let whole = r#"{"inputs":[{"name":"observation","shape":[3],"datatype":"INT64","data":[0,4,2]}],"outputs":[{"name":"action"}]}"#;
    put("kserve", "real", real)?;
    put("kserve", "whole", whole)
}

fn boxed(low: f32, high: f32, width: usize) -> oto_proto::Space {
    oto_proto::Space::Box { low: vec![low; width], high: vec![high; width] }
}

/// One frame of each kind in the formats of the target.
fn frames() -> Written {
    let ids = Ids { request: 7, policy: 1, version: 3 };
    let free = boxed(f32::NEG_INFINITY, f32::INFINITY, 3);
    for (name, dtype, n) in [("f32", Dtype::F32, 200), ("f16", Dtype::F16, 2000)] {
        let action = oto_proto::Space::Discrete { n };
        let formats = Formats {
            states: StateFormat::new(&free, dtype, None)?,
            actions: ActionFormat::new(&action, None)?,
        };
        let mut frame = Vec::new();
        let mut writer = formats.states.writer(ids, &mut frame);
        writer.state(&[0.5, -1.0, 2.0])?;
        writer.state(&[0.25, 8.0, -0.0])?;
        writer.finish()?;
        put("frames", &format!("states_{name}"), &frame)?;
        let ordered = formats.states.clone().ordered();
        let mut writer = ordered.writer(ids, &mut frame);
        writer.state_at(Place::new(7, true), &[0.5, -1.0, 2.0])?;
        writer.state_at(Place::new(8, false), &[0.25, 8.0, -0.0])?;
        writer.finish()?;
        put("frames", &format!("ordered_{name}"), &frame)?;
        let mut writer = formats.actions.writer(ids, &mut frame);
        writer.action(Action::Discrete(1))?;
        writer.action(Action::Discrete(n - 1))?;
        writer.finish()?;
        put("frames", &format!("actions_{name}"), &frame)?;
        let transitions = TransitionFormat::new(&formats, &action);
        let mut writer = transitions.writer(ids, BatchId(5), &mut frame);
        let observation = &[0.5, -1.0, 2.0];
        writer.transition(&Transition {
            observation,
            action: &[1.0],
            reward: 1.0,
            next_observation: observation,
            terminated: true,
            truncated: false,
        })?;
        writer.finish()?;
        put("frames", &format!("transitions_{name}"), &frame)?;
    }
    Ok(())
}

/// Rows of an actor in the formats of the target, and weights for its network.
fn actors() -> Written {
    let ids = Ids { request: 1, policy: 1, version: 3 };
    let free = boxed(f32::NEG_INFINITY, f32::INFINITY, 3);
    let bounded = oto_proto::Space::Box { low: vec![-3.0, f32::NEG_INFINITY], high: vec![3.0, 7.5] };
    for (name, dtype, action) in [
        ("f32", Dtype::F32, oto_proto::Space::Discrete { n: 200 }),
        ("f16", Dtype::F16, oto_proto::Space::Discrete { n: 2000 }),
        ("vector", Dtype::F32, bounded),
    ] {
        let action_dtype = (name == "vector").then_some(Dtype::F16);
        let formats = Formats {
            states: StateFormat::new(&free, dtype, None)?,
            actions: ActionFormat::new(&action, action_dtype)?,
        };
        let format = RowFormat::new(&formats, &action);
        let taken = vec![1.0; format.action_width()];
        let (mut rows, mut row, mut frame) = (Vec::new(), Vec::new(), Vec::new());
        for flags in [Flags::FIRST, Flags::FAULTY, Flags::EVALUATION, Flags::TRUNCATED] {
            format.encode(&[0.5, -1.0, 2.0], &taken, flags, &mut row)?;
            rows.extend_from_slice(&row);
        }
        format.write(ids, 40, &rows, &mut frame)?;
        put("stream", name, &frame)?;
    }
    let mut held = [0.5, -1.0, 2.0, 0.0, 1e-3, -3e38];
    let mut frame = Vec::new();
    for (name, encoding) in [("f16", Encoding::F16), ("f32", Encoding::F32)] {
        write_complete(ids, encoding, &[0.5, -1.0, 2.0, 0.0, 1e-3, -3e4], &mut frame)?;
        put("weights", name, &frame)?;
    }
    write_delta(ids, 2, &mut held, &[0.25, -1.5, 2.0, 1.0, 0.0, -2e38], &mut frame)?;
    put("weights", "delta_wide", &frame)?;
    let (mut held, ids) = ([0.5, -1.0, 2.0, 0.0, 1e-3, -3e38], Ids { version: 4, ..ids });
    let target = held.map(|weight: f32| if weight.abs() < 10.0 { weight + 0.1 } else { weight });
    write_delta(ids, 3, &mut held, &target, &mut frame)?;
    put("weights", "delta", &frame)?;
    write_gradients(Ids { version: 3, ..ids }, &[0.5, -1.0, 2.0, 0.0, 1e-3, -3e38], &mut frame)?;
    put("gradients", "plain", &frame)?;
    write_logits(ids, &[0.5, -1.0, 2.0, 0.0, 1e-3, -3e38], 3, &mut frame)?;
    put("logits", "plain", &frame)
}

const HELLO: &str = r#"{"type":"hello","protocol":"oto.v1","policy":"sac","student":"tab-1",
"observation":{"kind":"box","low":[-4.8,null,-0.4,null],"high":[4.8,null,0.4,null]},"action":{"kind":"discrete","n":2},
"adapter":{"observation":{"permutation":[0,2,1,3],"scale":[1,1,1,1],"offset":[0,0,0,0.5]},
"action":{"kind":"sign","component":0,"negative":0,"positive":1}},"dtype":"u8","action_dtype":"u8",
"quantization":{"scale":[0.1,0.1,0.1,0.1],"offset":[0,0,0,0]},"grants":["actions","submit"],"stage":"transfer","ticket":"00ff"}"#;

fn messages() -> Written {
    put("messages", "hello", HELLO)?;
    for (name, map) in [
        ("threshold", r#"{"kind":"threshold","component":0,"at":[0.5]}"#),
        ("table", r#"{"kind":"table","map":[1,0]}"#),
        ("levels", r#"{"kind":"levels","values":[[-1],[1e0]]}"#),
        ("affine", r#"{"kind":"affine","scale":[2.5],"offset":[-1]}"#),
    ] {
        let (observation, action) = match name {
            "levels" | "affine" => {
                (r#"{"kind":"discrete","n":3}"#, r#"{"kind":"box","low":[-1],"high":[1]}"#)
            }
            _ => (r#"{"kind":"box","low":[0],"high":[1]}"#, r#"{"kind":"discrete","n":2}"#),
        };
        let hello = format!(
            r#"{{"type":"hello","protocol":"oto.v1","policy":"p","student":"s","observation":{observation},"action":{action},"adapter":{{"action":{map}}}}}"#
        );
        put("messages", name, hello)?;
    }
    let stage = message::StageEvent { stage: message::Stage::Online, step: 9 };
    put("messages", "stage", oto_proto::ClientMessage::Stage(stage).encode())?;
    put("messages", "bye", oto_proto::ClientMessage::Bye.encode())?;
    let welcome = r#"{"type":"welcome","policy":"sac","policy_id":1,"version":3,"max_rows":64,"credits":8,"dtype":"f32",
"action_dtype":"u8","action_width":1,"grants":["actions","submit"],"submit_rows":16,
"teacher":{"observation":{"kind":"box","low":[null],"high":[null]},"action":{"kind":"discrete","n":200},"description":"one"}}"#;
    put("messages", "welcome", welcome)?;
    let hello = r#"{"type":"hello","protocol":"oto.v1","policy":"p","student":"s","observation":{"kind":"box","low":[-1],"high":[1]},
"action":{"kind":"box","low":[-1],"high":[1]},"grants":["transitions","weights"],"actor":{"name":"crane","stream":"000102030405060708090a0b0c0d0e0f","first":4,"weights":["delta","f16","f32"],"version":2}}"#;
    put("messages", "hello_actor", hello)?;
    let welcome = r#"{"type":"welcome","policy":"p","policy_id":1,"version":3,"max_rows":64,"credits":1,"dtype":"f32","action_dtype":"f32","action_width":1,
"grants":["transitions","weights"],"teacher":{"observation":{"kind":"box","low":[-1],"high":[1]},"action":{"kind":"box","low":[-1],"high":[1]}},
"learner":{"session":5,"next":4,"ring":100,"weights":"delta","model":{"kind":"mlp","widths":[1,3,1],"activation":"tanh","output":"clip","parameters":10},"hz":30}}"#;
    put("messages", "welcome_learner", welcome)?;
    for (name, text) in [
        ("applied", r#"{"type":"applied","version":4}"#),
        ("refused", r#"{"type":"refused","version":4,"reason":"missing_base"}"#),
        ("dropped", r#"{"type":"dropped","first":1200}"#),
        ("received", r#"{"type":"received","next":1200}"#),
        ("published", r#"{"type":"published","version":4}"#),
        ("submitted", r#"{"type":"submitted","request":1,"batch":"000102030405060708090a0b0c0d0e0f"}"#),
        ("overloaded", r#"{"type":"overloaded","request":1,"retry_ms":50}"#),
        ("restarting", r#"{"type":"restarting","retry_ms":1000}"#),
        ("error", r#"{"type":"error","code":"bad_shape","message":"rows","request":2}"#),
    ] {
        put("messages", name, text)?;
    }
    Ok(())
}

fn json() -> Written {
    put(
        "json",
        "all",
        "{\"a\":[1,-2,0.5,1e-320,-0,1.7976931348623157e308],\"\\u00e9\\ud83d\\ude00\\n\":null,\"\":[true,false,{}]}",
    )?;
    put(
        "json",
        "halfway",
        "[9007199254740993.0000000000000000000000001,2.4703282292062328e-324,18446744073709551616]",
    )
}

/// The pickle of a state dict in a known layout, and archives of it as PyTorch and Stable-Baselines3 have them.
fn archives() -> Written {
    use std::io::{Cursor, Read, Write};
    use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};
    let zipped = |files: &[(&str, &[u8])]| -> Result<Vec<u8>, Box<dyn Error>> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            archive.start_file(
                *name,
                SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated),
            )?;
            archive.write_all(content)?;
        }
        Ok(archive.finish()?.into_inner())
    };
    let pickle = pickled(&[("action_net.weight", [2, 4]), ("action_net.bias", [2, 0])]);
    put("pickle", "linear", &pickle)?;
    let numbers = [0; 64];
    let torch = zipped(&[("a/data.pkl", &pickle), ("a/data/0", &numbers), ("a/byteorder", b"little")])?;
    put("torch", "linear.pth", &torch)?;
    let data = br#"{"observation_space":{":type:":"<class 'gymnasium.spaces.box.Box'>","low":"[-1. -1. -1. -1.]","high":"[1. 1. 1. 1.]"},
"action_space":{":type:":"<class 'gymnasium.spaces.discrete.Discrete'>","n":"2"},"policy_kwargs":{"activation_fn":"<class 'torch.nn.modules.activation.Tanh'>"}}"#;
    put("torch", "model.zip", zipped(&[("policy.pth", &torch), ("data", data)])?)?;
    // What PyTorch itself writes.
    let whole = fs::read(root().join("tests/fixtures/teacher_ppo_cartpole_v1.policy.pth"))?;
    let mut archive = ZipArchive::new(Cursor::new(whole))?;
    let name = archive
        .file_names()
        .flatten()
        .find(|name| name.ends_with("data.pkl"))
        .ok_or("no pickle")?
        .into_owned();
    let mut written = Vec::new();
    archive.by_name(&name)?.read_to_end(&mut written)?;
    put("pickle", "ppo", written)
}

/// A state dict as `torch.save` writes it; a second size of 0 is none.
fn pickled(tensors: &[(&str, [u8; 2])]) -> Vec<u8> {
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let mut p = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (name, size) in tensors {
        p.extend(text(name));
        p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        p.extend(
            [
                text("storage"),
                b"ctorch\nFloatStorage\n".to_vec(),
                text("0"),
                text("cpu"),
                b"K\x10tQK\0".to_vec(),
            ]
            .concat(),
        );
        match size {
            [rows, 0] => p.extend([b'K', *rows, 0x85, b'K', 1, 0x85]),
            [rows, columns] => p.extend([b'K', *rows, b'K', *columns, 0x86, b'K', *columns, b'K', 1, 0x86]),
        }
        p.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    p.extend(b"u.");
    p
}

fn datasets() -> Written {
    let dataset = targets::small_dataset();
    let (hdf5, text) = oto_data::fuzz::written_hdf5(&dataset);
    put("hdf5", "minari", hdf5)?;
    put("minari", "small", text)?;
    put("parquet", "discrete", oto_data::fuzz::written_parquet(&dataset))?;
    let continuous = Dataset { action: Space::uniform(1, -1.0, 1.0), ..dataset };
    put("parquet", "continuous", oto_data::fuzz::written_parquet(&continuous))?;
    copies("hdf5", "crates/oto-data/tests/fixtures", &["cyclic.hdf5", "d4rl.hdf5", "huge.hdf5"])?;
    let resizable = "crates/oto-data/tests/fixtures/cartpole_resizable/data/main_data.hdf5";
    put("hdf5", "resizable", fs::read(root().join(resizable))?)
}

fn submissions() -> Written {
    let submission = Submission {
        batch: BatchId(1),
        student: "tab-1".into(),
        observation: vec![0.5, 1.0, 1.5, 2.0],
        action: vec![0.0, 1.0],
        reward: vec![1.0, -1.0],
        next_observation: vec![1.5, 2.0, 2.5, 3.0],
        terminated: vec![false, true],
        truncated: vec![false, false],
    };
    let payload = fuzz::written_batch(&submission);
    put("batch", "two", &payload)?;
    put("segment", "three", fuzz::written_segment(&[(1, &payload), (2, b""), (3, b"none")]))
}

fn students() -> Written {
    let mut student = targets::small_student();
    put("checkpoint", "new", student.save(true)?)?;
    targets::go_on(&mut student);
    put("checkpoint", "old", student.save(true)?)?;
    put("checkpoint", "without_replay", student.save(false)?)
}

/// What a bridge's process answers: plain numbers, an image of bytes, and a dictionary of parts.
fn bridges() -> Written {
    let frame = |kind: u8, bytes: &[u8]| [&[kind][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let episode = |name: &str, about: &str, seen: &[u8]| {
        let stepped = [&1.5_f64.to_le_bytes()[..], &[0, 1], seen].concat();
        let made = frame(b'M', about.as_bytes());
        put("bridge", name, [made, frame(b'R', seen), frame(b'S', &stepped), frame(b'E', b"hot")].concat())
    };
    let numbers = |numbers: &[f64]| -> Vec<u8> { numbers.iter().flat_map(|x| x.to_le_bytes()).collect() };
    episode(
        "episode",
        r#"{"observation":{"kind":"box","low":[null,0.0],"high":[1.0,null]},"action":{"kind":"discrete","n":3,"start":-1},"shape":[2],"pixels":null,"max_episode_steps":9,"spec":"{}"}"#,
        &numbers(&[0.5, 2.0]),
    )?;
    episode(
        "image",
        r#"{"observation":{"kind":"box","low":[0,0,0,0],"high":[255,255,255,255]},"action":{"kind":"box","low":[-1],"high":[1]},"shape":[1,2,2],"pixels":"byte","max_episode_steps":null,"spec":null}"#,
        &[0, 1, 254, 255],
    )?;
    episode(
        "parts",
        r#"{"observation":{"kind":"dict","spaces":[["place",{"kind":"multi_discrete","nvec":[2,3],"start":[0,-1]}],["rest",{"kind":"tuple","spaces":[{"kind":"discrete","n":4,"start":2},{"kind":"multi_binary","n":2},{"kind":"box","low":[null],"high":[null]}]}]]},"action":{"kind":"multi_binary","n":2},"shape":[],"pixels":null,"max_episode_steps":5,"spec":null}"#,
        &numbers(&[1.0, -1.0, 5.0, 0.0, 1.0, 0.25]),
    )
}

fn operators() -> Written {
    let hash = "ab".repeat(32);
    put(
        "access",
        "all",
        format!(
            r#"{{"machines":[{{"name":"lab","token_sha256":"{hash}","policies":["sac"],"grants":["actions","submit","weights"],"states_per_second":1e3,"connections":4}}],"pages":{{"grants":["actions"],"states_per_second":0.5,"connections":2}},"ticket_seconds":60}}"#
        ),
    )?;
    put(
        "toml",
        "all",
        "port = 80\norigin = [\"https://a\", \"https://b\"]\nshare_weights = true\n[tls]\ncert = \"c.pem\"\n",
    )?;
    let teacher =
        r#"{"url":"ws://127.0.0.1:1","policy":"sac_inverted_pendulum_v5","weight":0.5,"dtype":"f16"}"#;
    put(
        "config",
        "taught",
        format!(
            r#"{{"student":{{"seed":7,"algorithm":{{"name":"ppo","n_steps":64}},"plateau_decay":null,"stages":{{"transfer":{{"steps":9,"give_up":{{"after_steps":3,"below_return":-1.5}}}}}}}},"env":"CartPole-v1","teachers":[{teacher}]}}"#
        ),
    )?;
    put(
        "config",
        "page",
        r#"{"student":{"gamma":0.9},"env":{"observation":{"kind":"box","low":[-1,null],"high":[1,null]},"action":{"kind":"box","low":[-2],"high":[2]}},"teachers":[]}"#,
    )
}
