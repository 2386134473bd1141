use super::*;

fn error(json: &str) -> FieldError {
    Filter::default().add_json(json).unwrap_err()
}

#[test]
fn mistakes_are_named_by_their_field() {
    let cases = [
        ("{}", "filters: must be a JSON array"),
        ("[1]", "filters[0].operator: must be a text"),
        (
            r#"[{"key":"model","operator":"is","value":["x"]}]"#,
            "filters[0].operator: must be one of eq, neq",
        ),
        (
            r#"[{"operator":"eq","value":["x"]}]"#,
            "filters[0].key: must be a text",
        ),
        (
            r#"[{"key":"colour","operator":"eq","value":["x"]}]"#,
            "filters[0].key: `colour` is not one of id,",
        ),
        (
            r#"[{"key":"metadata.","operator":"eq","value":["x"]}]"#,
            "filters[0].key: `metadata.` is not",
        ),
        (
            r#"[{"key":"model","operator":"eq","value":[]}]"#,
            "filters[0].value: must be 1 to 100 values",
        ),
        (
            r#"[{"key":"model","operator":"eq"}]"#,
            "filters[0].value: must be a text",
        ),
        (
            r#"[{"key":"model","operator":"gt","value":["x"]}]"#,
            "filters[0].operator: `model` is compared with eq, neq, contains only",
        ),
        (
            r#"[{"key":"cost","operator":"gt","value":["x"]}]"#,
            "filters[0].value: must be a number",
        ),
        (
            r#"[{"key":"success","operator":"eq","value":["yes"]}]"#,
            "filters[0].value: must be true or false",
        ),
        (
            r#"[{"key":"created_at","operator":"gt","value":["now"]}]"#,
            "filters[0].value: must be a time",
        ),
        (
            r#"[{"key":"id","operator":"eq","value":["1"]}]"#,
            "filters[0].value: must be a UUID",
        ),
        (
            r#"[{"key":"model","operator":"eq","value":["a"]},{"key":"cost","operator":"eq","value":[null]}]"#,
            "filters[1].value: must be a number",
        ),
    ];
    for (json, start) in cases {
        let text = error(json).to_string();
        assert!(text.starts_with(start), "{json}: {text}");
    }
    assert!(error(r#"[{"key":"x","operator":"eq","value":["x"]}]"#).unknown_key);
    assert!(!error("[1]").unknown_key);
    let many = format!(
        "[{}]",
        vec![r#"{"key":"model","operator":"eq","value":"x"}"#; 33].join(",")
    );
    assert_eq!(error(&many).field, "filters");
    let long = format!(
        r#"[{{"key":"model","operator":"eq","value":"{}"}}]"#,
        "x".repeat(1025)
    );
    assert_eq!(error(&long).field, "filters[0].value");
}

#[test]
fn one_value_needs_no_array() {
    let mut filter = Filter::default();
    filter
        .add_json(r#"[{"key":"model","operator":"eq","value":"x"}]"#)
        .unwrap();
    let mut flat = Filter::default();
    assert!(flat.add_flat("model", "x").unwrap());
    assert_eq!(filter, flat);
    assert!(!flat.add_flat("min_status", "x").unwrap());
}
