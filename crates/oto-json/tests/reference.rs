//! Held to serde_json, on texts of every form and on every number.

use oto_json::Json;
use proptest::prelude::*;

fn any_json() -> impl Strategy<Value = Json> {
    let text = prop_oneof!["[ -~]{0,8}", any::<String>()];
    let leaf = prop_oneof![
        Just("null".to_string()),
        any::<bool>().prop_map(|v| v.to_string()),
        any::<u64>().prop_map(|v| v.to_string()),
        any::<i64>().prop_map(|v| v.to_string()),
        any::<f64>()
            .prop_filter("finite", |v| v.is_finite())
            .prop_map(|v| serde_json::to_string(&v).unwrap()),
        text.prop_map(|v| serde_json::to_string(&v).unwrap()),
    ]
    .prop_map(|text| oto_json::parse(&text).unwrap());
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::List),
            prop::collection::btree_map("[a-z\"\\\\\u{0}-\u{20}]{0,3}", inner, 0..5)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_means_the_same_to_both(tree in any_json()) {
        let text = oto_json::write(&tree);
        prop_assert_eq!(oto_json::parse(&text).unwrap(), tree.clone());
        prop_assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), tree.clone());
        prop_assert_eq!(oto_json::parse(&serde_json::to_string_pretty(&tree).unwrap()).unwrap(), tree);
    }

    #[test]
    fn both_accept_the_same_texts(text in r#"[\[\]{}:,"\\ 0-9eE.+\-ntrufalsd]{0,12}"#) {
        let (ours, theirs) = (oto_json::parse(&text), serde_json::from_str::<Json>(&text));
        prop_assert_eq!(ours.clone().ok(), theirs.ok(), "{:?}: {:?}", text, ours);
    }

    #[test]
    fn spoilt_texts_are_errors_for_both(tree in any_json(), at in any::<prop::sample::Index>(), put in r#"[\[\]{}:,"\\ 0-9eE.+\-u]?"#) {
        let mut text: Vec<char> = oto_json::write(&tree).chars().collect();
        let at = at.index(text.len());
        text.splice(at..=at, put.chars());
        let text: String = text.into_iter().collect();
        let (ours, theirs) = (oto_json::parse(&text), serde_json::from_str::<Json>(&text));
        prop_assert_eq!(ours.clone().ok(), theirs.ok(), "{:?}: {:?}", text, ours);
    }

    #[test]
    fn every_number_comes_back(double in any::<f64>(), single in any::<f32>()) {
        prop_assume!(double.is_finite() && single.is_finite());
        prop_assert_eq!(oto_json::read::<f64>(&oto_json::write(&double)).map(f64::to_bits), Ok(double.to_bits()));
        prop_assert_eq!(oto_json::read::<f32>(&oto_json::write(&single)).map(f32::to_bits), Ok(single.to_bits()));
    }
}

#[test]
fn numbers_at_the_edges_are_read_alike() {
    for text in [
        "0",
        "-0",
        "-0.0",
        "1E5",
        "1e-400",
        "4.9e-324",
        "2.4703282292062327e-324",
        "1.7976931348623157e308",
        "1e309",
        "-1e309",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "9007199254740993.0",
        "0.1e1",
        "123456789012345678901234567890e-20",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "--1",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
    ] {
        let (ours, theirs) = (oto_json::parse(text), serde_json::from_str::<Json>(text));
        assert_eq!(ours.clone().ok(), theirs.ok(), "{text}: {ours:?}");
    }
}

#[test]
fn texts_at_the_edges_are_read_alike() {
    for text in [
        r#""\u00e9\ud83d\ude00""#,
        r#""\ud83d""#,
        r#""\ud83dx""#,
        r#""\ude00""#,
        r#""\ud83d\u0041""#,
        r#""\u12""#,
        r#""\x""#,
        "\"\n\"",
        "\"é\"",
        "\"",
        "",
        " ",
        "nul",
        "[1,]",
        "{\"a\":1,}",
        "[1 2]",
        "{a:1}",
        "{\"a\" 1}",
        "[]]",
        "\u{feff}1",
    ] {
        let (ours, theirs) = (oto_json::parse(text), serde_json::from_str::<Json>(text));
        assert_eq!(ours.clone().ok(), theirs.ok(), "{text}: {ours:?}");
    }
}

#[test]
fn an_object_has_a_thousand_keys_and_not_endlessly_more() {
    let object = |keys: usize| {
        let entries: Vec<String> = (0..keys).map(|i| format!("\"{i}\":{i}")).collect();
        format!("{{{}}}", entries.join(","))
    };
    let Ok(Json::Object(entries)) = oto_json::parse(&object(1024)) else { panic!("it is an object") };
    assert_eq!(entries.len(), 1024);
    let error = oto_json::parse(&object(1025)).unwrap_err().to_string();
    assert!(error.starts_with("too many keys in an object at line 1"), "{error}");
}
