//! KServe's protocol: what programs that are no students get.

use crate::policies::{boxed, function, gated, loaded, sum};
use crate::security_options::sha256;
use crate::student::{SHORT, Server, request, request_to, serve};
use oto_proto::Space;
use oto_server::access::Access;
use serde_json::{Value, json};
use std::io::Write;

/// Posts JSON; gives the status and what came back.
fn post(server: &Server, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let headers = format!("content-type: application/json\r\ncontent-length: {}\r\n{headers}", body.len());
    answer(request_to(server.address, &format!("POST {path}"), &headers, body.as_bytes()))
}

fn get(server: &Server, path: &str) -> (u16, Value) {
    answer(request(server, &format!("GET {path}"), ""))
}

fn answer((head, body): (String, Vec<u8>)) -> (u16, Value) {
    (head[9..12].parse().unwrap(), serde_json::from_slice(&body).unwrap_or_default())
}

/// Two states of the policy `sum`, of which one sums up to more than nothing.
fn two() -> String {
    states(json!([[1.0, 2.0, -0.5, 0.0], [-1.0, 0.0, 0.25, 0.0]]), 2)
}

fn states(data: Value, rows: usize) -> String {
    let input = json!({ "name": "observation", "shape": [rows, 4], "datatype": "FP32", "data": data });
    json!({ "id": "seven", "inputs": [input] }).to_string()
}

#[test]
fn a_policy_answers_as_it_answers_students() {
    let server = serve(vec![sum()], |_| {});
    let mut student = server.pupil("sum");
    student.ask(&[[1.0, 2.0, -0.5, 0.0], [-1.0, 0.0, 0.25, 0.0]]);
    let told: Vec<i64> = student.answer().rows.iter().map(|action| action[0] as i64).collect();
    let (status, said) = post(&server, "/v2/models/sum/infer", "", &two());
    assert_eq!(status, 200, "{said}");
    let output = json!({ "name": "action", "shape": [2, 1], "datatype": "INT64", "data": told });
    let expected = json!({ "model_name": "sum", "model_version": "1", "id": "seven", "outputs": [output] });
    assert_eq!(said, expected);
    let version = post(&server, "/v2/models/sum/versions/1/infer", "", &two());
    assert_eq!(version, (200, expected));
    assert_eq!(post(&server, "/v2/models/sum/versions/2/infer", "", &two()).0, 404);
}

#[test]
fn real_actions_come_as_they_are() {
    let half = function(boxed(4), boxed(2), |state, actions| actions.extend([state[0] / 2.0, 0.1]));
    let server = serve(vec![loaded("half", half)], |_| {});
    let (status, said) = post(&server, "/v2/models/half/infer", "", &states(json!([1, 0, 0, 0]), 1));
    assert_eq!(status, 200, "{said}");
    assert_eq!(said["outputs"][0]["datatype"], "FP32");
    assert_eq!(said["outputs"][0]["data"].to_string(), "[0.5,0.1]");
}

#[test]
fn models_and_health_are_described() {
    let server = serve(vec![sum()], |_| {});
    assert_eq!(get(&server, "/v2").1["name"], "oto");
    assert_eq!((get(&server, "/v2/health/live").0, get(&server, "/v2/health/ready").0), (200, 200));
    let tensor = |name, datatype, width| json!({ "name": name, "datatype": datatype, "shape": [-1, width] });
    let about = json!({
        "name": "sum", "versions": ["1"], "platform": "oto",
        "inputs": [tensor("observation", "FP32", 4)], "outputs": [tensor("action", "INT64", 1)],
    });
    assert_eq!(get(&server, "/v2/models/sum"), (200, about));
    assert_eq!(get(&server, "/v2/models/sum/ready").0, 200);
    assert_eq!(get(&server, "/v2/models/none/ready").0, 404);
    assert_eq!(get(&server, "/v2/models/sum/infer").0, 405);
    assert_eq!(get(&server, "/v2x").0, 404);
    assert_eq!(get(&serve(vec![], |_| {}), "/v2/health/ready").0, 503);
}

#[test]
fn what_is_no_request_is_refused_and_says_why() {
    let server = serve(vec![sum()], |config| config.limits.message_bytes = 4096);
    let long = states(json!(vec![0.0; 4 * 500]), 500);
    for (status, body) in [
        (400, "{"),
        (400, "{}"),
        (400, &states(json!([1, 2, 3]), 1)),
        (400, &states(json!([1, 2, 3, 1e300]), 1)),
        (400, &states(json!([1, 2, 3, null]), 1)),
        (400, &two().replace("observation", "obs")),
        (400, &two().replace("\"inputs\"", "\"outputs\":[{\"name\":\"q\"}],\"inputs\"")),
        (413, &long),
    ] {
        let (found, said) = post(&server, "/v2/models/sum/infer", "", body);
        assert_eq!(found, status, "{body}: {said}");
        assert!(said["error"].as_str().is_some_and(|why| !why.is_empty()), "{body}");
    }
    server.pupil("sum").is_well();
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let server = serve(vec![sum()], |config| config.limits.header_timeout = SHORT);
    let mut stream = server.connect();
    let head = "POST /v2/models/sum/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let mut said = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 413");
}

#[test]
fn requests_that_wait_too_long_come_again() {
    let (policy, gate) = gated();
    let server = serve(vec![policy], |config| config.limits.queue.timeout = SHORT);
    let ask = || post(&server, "/v2/models/gated/infer", "", &two());
    std::thread::scope(|scope| {
        // The first one holds the policy; the second one waits behind it until it is too late.
        let first = scope.spawn(ask);
        gate.wait_for_calls(1);
        let second = scope.spawn(ask);
        std::thread::sleep(2 * SHORT);
        gate.open();
        assert_eq!(first.join().unwrap().0, 200);
        assert_eq!(second.join().unwrap().0, 503);
    });
}

#[test]
fn machines_show_their_tokens_and_keep_their_quotas() {
    let token = "a machine's own secret";
    let machine =
        json!({ "name": "box", "token_sha256": sha256(token), "policies": ["sum"], "states_per_second": 2 });
    let access: Access = serde_json::from_value(json!({ "machines": [machine], "pages": {} })).unwrap();
    let other = function(boxed(4), Space::Discrete { n: 2 }, |_, actions| actions.push(0.0));
    let server = serve(vec![sum(), loaded("other", other)], |config| {
        config.access = Some(access);
        config.origins = vec!["https://friend.example".into()];
    });
    let bearer = format!("authorization: Bearer {token}\r\n");
    let ask =
        |policy: &str, headers: &str| post(&server, &format!("/v2/models/{policy}/infer"), headers, &two()).0;
    assert_eq!(ask("sum", ""), 401);
    assert_eq!(ask("sum", "origin: https://friend.example\r\n"), 401);
    assert_eq!(ask("sum", "authorization: Bearer a guess of it all\r\n"), 401);
    assert_eq!(ask("other", &bearer), 403);
    assert_eq!(ask("sum", &format!("{bearer}origin: https://stranger.example\r\n")), 403);
    assert_eq!(ask("sum", &bearer), 200);
    assert_eq!(ask("sum", &bearer), 429, "two states a second are spent");
}

/// What Triton's client sends where nobody says otherwise: bytes after the JSON, and bytes are wanted back.
#[test]
fn tensors_may_be_bytes_in_both_directions() {
    let half = function(boxed(4), boxed(2), |state, actions| actions.extend([state[0] / 2.0, 0.1]));
    let server = serve(vec![sum(), loaded("half", half)], |_| {});
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let ask = |policy: &str, request: Value, numbers: &[f32]| {
        let (json, tail) = (request.to_string(), bytes(numbers));
        let headers = format!(
            "inference-header-content-length: {}\r\ncontent-length: {}\r\n",
            json.len(),
            json.len() + tail.len()
        );
        let body = [json.as_bytes(), &tail].concat();
        let line = format!("POST /v2/models/{policy}/infer");
        let (head, body) = request_to(server.address, &line, &headers, &body);
        assert!(head.starts_with("http/1.1 200"), "{head} {}", String::from_utf8_lossy(&body));
        let at = head.lines().find_map(|line| line.strip_prefix("inference-header-content-length: "));
        let (json, tail) = body.split_at(at.map_or(body.len(), |at| at.parse().unwrap()));
        (serde_json::from_slice::<Value>(json).unwrap(), tail.to_vec())
    };
    let input = |rows: usize| {
        let parameters = json!({ "binary_data_size": 16 * rows });
        json!([{ "name": "observation", "shape": [rows, 4], "datatype": "FP32", "parameters": parameters }])
    };
    let numbers = [1.0, 2.0, -0.5, 0.0, -1.0, 0.0, 0.25, 0.0];
    // All outputs as bytes.
    let all = json!({ "inputs": input(2), "parameters": { "binary_data_output": true } });
    let (said, tail) = ask("sum", all, &numbers);
    let output = json!({ "name": "action", "shape": [2, 1], "datatype": "INT64", "parameters": { "binary_data_size": 16 } });
    assert_eq!(said["outputs"], json!([output]));
    assert_eq!(tail, [1_i64.to_le_bytes(), 0_i64.to_le_bytes()].concat());
    // One that is named.
    let named = json!({ "name": "action", "parameters": { "binary_data": true } });
    let (_, tail) = ask("half", json!({ "inputs": input(1), "outputs": [named] }), &numbers[..4]);
    assert_eq!(tail, bytes(&[0.5, 0.1]));
    // Numbers are given where no bytes are wanted.
    let (said, tail) = ask("half", json!({ "inputs": input(1) }), &numbers[..4]);
    assert_eq!((said["outputs"][0]["data"].to_string(), tail.len()), ("[0.5,0.1]".into(), 0));
    assert_eq!(get(&server, "/v2").1["extensions"], json!(["binary_tensor_data"]));
    for header in ["inference-header-content-length: 9999\r\n", "inference-header-content-length: x\r\n"] {
        let (status, said) = post(&server, "/v2/models/sum/infer", header, &two());
        assert_eq!(status, 400, "{said}");
    }
}

#[test]
fn an_extension_that_is_not_spoken_is_refused_by_name() {
    let server = serve(vec![sum()], |_| {});
    let ask = |input: Value, output: Value| {
        let input = json!({ "name": "observation", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4], "parameters": input });
        let output = json!({ "name": "action", "parameters": output });
        let body = json!({ "inputs": [input], "outputs": [output] }).to_string();
        post(&server, "/v2/models/sum/infer", "", &body)
    };
    assert_eq!(ask(json!({}), json!({})).0, 200);
    assert_eq!(
        ask(json!({ "anything": 1 }), json!({ "else": "x" })).0,
        200,
        "parameters of others are theirs"
    );
    for (parameter, value) in [("classification", json!(2)), ("shared_memory_region", json!("mine"))] {
        let parameters = json!({ parameter: value });
        for (status, said) in [ask(parameters.clone(), json!({})), ask(json!({}), parameters.clone())] {
            assert_eq!(status, 400, "{parameters}: {said}");
            assert!(said["error"].as_str().unwrap().contains(parameter), "{said}");
        }
    }
}

#[test]
fn a_packed_body_is_refused_with_a_sentence() {
    let server = serve(vec![sum()], |_| {});
    for coding in ["gzip", "deflate", "br", "identity, gzip"] {
        let header = format!("content-encoding: {coding}\r\n");
        let (status, said) = post(&server, "/v2/models/sum/infer", &header, "\u{1f}packed");
        assert_eq!(status, 415, "{said}");
        assert!(said["error"].as_str().unwrap().contains("content-encoding"), "{said}");
    }
    assert_eq!(post(&server, "/v2/models/sum/infer", "content-encoding: identity\r\n", &two()).0, 200);
}
