//! Comparison of a message of ours with those of the official client, as JSON.

use serde_json::Value;

/// Lists what is missing or different in our message, apart from nulls.
pub fn compare(path: &str, ours: &Value, theirs: &Value, faults: &mut Vec<String>) {
    match (ours, theirs) {
        (_, Value::Null) => {}
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, theirs) in theirs {
                let ours = ours.get(key).unwrap_or(&Value::Null);
                compare(&format!("{path}.{key}"), ours, theirs, faults);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (ours, theirs) in ours.iter().zip(theirs) {
                compare(&format!("{path}[]"), ours, theirs, faults);
            }
        }
        _ if ours == theirs => {}
        _ => faults.push(format!("{path}: ours is {ours}, theirs {theirs}")),
    }
}

/// Lists what is in our message and in none of theirs, apart from nulls.
pub fn surplus(path: &str, ours: &Value, theirs: &[&Value], faults: &mut Vec<String>) {
    match ours {
        Value::Object(ours) => {
            for (key, ours) in ours {
                let theirs: Vec<_> = theirs.iter().filter_map(|t| t.get(key)).collect();
                surplus(&format!("{path}.{key}"), ours, &theirs, faults);
            }
        }
        Value::Array(ours) => {
            for (at, ours) in ours.iter().enumerate() {
                let theirs: Vec<_> = theirs.iter().filter_map(|t| t.get(at)).collect();
                surplus(&format!("{path}[]"), ours, &theirs, faults);
            }
        }
        Value::Null => {}
        _ if theirs.iter().any(|theirs| !theirs.is_null()) => {}
        _ => faults.push(format!("{path}: ours is {ours}, theirs unset")),
    }
}
