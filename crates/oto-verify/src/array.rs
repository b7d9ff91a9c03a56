//! Arrays in JSON: nested lists, row-major.

use serde_json::Value;

/// Numbers with their shape; one number has no axis.
pub(crate) struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// Nested lists of numbers, all rows of the same length and none empty.
pub(crate) fn read_array(value: &Value) -> Result<Array, String> {
    let mut shape = Vec::new();
    let mut first = value;
    while let Value::Array(list) = first {
        shape.push(list.len());
        first = list.first().ok_or("holds an empty list")?;
    }
    let mut values = Vec::new();
    flatten(value, &shape, &mut values)?;
    Ok(Array { shape, values })
}

fn flatten(value: &Value, shape: &[usize], values: &mut Vec<f64>) -> Result<(), String> {
    match (value, shape) {
        (Value::Number(number), []) => values.push(number.as_f64().ok_or("holds no float64")?),
        (Value::Bool(bool), []) => values.push(f64::from(u8::from(*bool))),
        (Value::Array(list), [length, inner @ ..]) if list.len() == *length => {
            list.iter().try_for_each(|row| flatten(row, inner, values))?;
        }
        _ => return Err("is no array of numbers with rows of one length".into()),
    }
    Ok(())
}
