//! The npm package's types beside what they describe: every key of a link's metrics and of an adapter, as the engine writes it, is in
//! the interface of its name, and none besides.

use oto_agent::config::StudentConfig;
use oto_agent::student::{Environments, Student, TeacherConfig};
use oto_cpu::Cpu;
use oto_json::Json;
use oto_proto::{ActionMap, Adapter, Dtype, ObservationMap};
use std::collections::BTreeSet;

const METRICS: &str = include_str!("../../../web/student/src/metrics.ts");
const OPTIONS: &str = include_str!("../../../web/student/src/options.ts");

fn camel(key: &str) -> String {
    let mut words = key.split('_');
    let first = words.next().unwrap_or_default().to_string();
    words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

/// The keys of an object as a page has them.
fn keys(value: &Json) -> BTreeSet<String> {
    let Json::Object(entries) = value else { panic!("an object, not {value:?}") };
    entries.iter().map(|(key, _)| camel(key)).collect()
}

/// The names before the colons of some TypeScript: one property each line or between semicolons.
fn properties<'t>(parts: impl Iterator<Item = &'t str>) -> BTreeSet<String> {
    let parts = parts.map(str::trim).filter(|part| !part.starts_with(['/', '*']));
    let names = parts.filter_map(|part| Some(part.split_once(':')?.0.trim_end_matches('?').to_string()));
    names.collect()
}

/// The properties of an interface.
fn interface(file: &str, name: &str) -> BTreeSet<String> {
    let (_, rest) = file.split_once(&format!("export interface {name} {{\n")).expect(name);
    properties(rest.split_once("\n}").expect(name).0.lines())
}

fn tree<T: oto_json::ToJson>(value: &T) -> Json {
    oto_json::parse(&oto_json::write(value)).unwrap()
}

#[test]
fn a_links_metrics_have_the_keys_of_their_types() {
    let teacher = TeacherConfig {
        url: "ws://127.0.0.1:1".into(),
        policy: "p".into(),
        adapter: None,
        learn_adapter: None,
        dtype: Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit: false,
    };
    let environment = Environments::built_in("CartPole-v1").unwrap();
    let student = Student::new(&StudentConfig::default(), environment, &[teacher], &Cpu, 0).unwrap();
    let metrics = tree(&student.metrics(0));
    let Some(Json::List(teachers)) = metrics.get("teachers") else { panic!("a list of teachers") };
    assert_eq!(keys(&teachers[0]), interface(METRICS, "TeacherMetrics"));
    assert_eq!(keys(teachers[0].get("stats").unwrap()), interface(METRICS, "LinkStats"));
    assert_eq!(keys(metrics.get("backend").unwrap()), interface(METRICS, "Backend"));
}

/// One action map of each kind. A new kind does not compile before it is listed here.
fn action_maps() -> Vec<ActionMap> {
    let all = vec![
        ActionMap::Identity,
        ActionMap::Sign { component: 0, negative: 0, positive: 1 },
        ActionMap::Threshold { component: 0, at: vec![0.0] },
        ActionMap::Affine { scale: vec![1.0], offset: vec![0.0] },
        ActionMap::Table { map: vec![0] },
        ActionMap::Levels { values: vec![vec![0.0]] },
    ];
    let kinds = all.iter().map(|map| match map {
        ActionMap::Identity => 0,
        ActionMap::Sign { .. } => 1,
        ActionMap::Threshold { .. } => 2,
        ActionMap::Affine { .. } => 3,
        ActionMap::Table { .. } => 4,
        ActionMap::Levels { .. } => 5,
    });
    assert!(kinds.eq(0..all.len()));
    all
}

#[test]
fn every_adapter_can_be_written_in_the_types() {
    let (_, rest) = OPTIONS.split_once("export type ActionMap =\n").unwrap();
    let union = rest.split_once(';').and_then(|_| rest.split_once("\n\n")).unwrap().0;
    let written =
        union.lines().map(|line| line.trim().trim_start_matches("| {").trim_end_matches([';', '}', ' ']));
    let written = written.collect::<Vec<_>>();
    let maps = action_maps();
    assert_eq!(written.len(), maps.len(), "{written:?}");
    for map in &maps {
        let value = tree(map);
        let Some(Json::Text(kind)) = value.get("kind") else { panic!("a kind") };
        let tag = format!("kind: '{kind}'");
        let line =
            written.iter().find(|line| line.contains(&tag)).unwrap_or_else(|| panic!("{kind} is missing"));
        assert_eq!(keys(&value), properties(line.split(';')), "{kind}");
    }
    let observation =
        ObservationMap { permutation: Some(vec![0]), scale: Some(vec![1.0]), offset: Some(vec![0.0]) };
    assert_eq!(keys(&tree(&observation)), interface(OPTIONS, "ObservationMap"));
    let adapter = Adapter { observation: Some(observation), action: Some(maps[0].clone()) };
    assert_eq!(keys(&tree(&adapter)), interface(OPTIONS, "Adapter"));
}
