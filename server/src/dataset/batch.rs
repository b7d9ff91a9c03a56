//! A batch as bytes: a safetensors file, with its names in the metadata.

use super::Submission;
use oto_proto::BatchId;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

impl Submission {
    /// Whether every column is as long as its rows, and every number finite.
    pub(super) fn is_whole(&self) -> bool {
        let rows = self.rows();
        let whole =
            |column: &[f32]| column.len().is_multiple_of(rows) && column.iter().all(|x| x.is_finite());
        rows > 0
            && [&self.observation, &self.action, &self.reward, &self.next_observation]
                .into_iter()
                .all(|c| whole(c))
            && self.observation.len() == self.next_observation.len()
            && !self.observation.is_empty()
            && !self.action.is_empty()
            && self.terminated.len() == rows
            && self.truncated.len() == rows
    }
}

/// A whole batch as safetensors, with its names in the metadata.
pub(super) fn encode(s: &Submission) -> Vec<u8> {
    let rows = s.rows();
    let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let flags = |values: &[bool]| values.iter().map(|x| u8::from(*x)).collect::<Vec<u8>>();
    let table = |values: &[f32]| vec![rows, values.len() / rows];
    let columns = [
        ("observation", Dtype::F32, table(&s.observation), floats(&s.observation)),
        ("action", Dtype::F32, table(&s.action), floats(&s.action)),
        ("reward", Dtype::F32, vec![rows], floats(&s.reward)),
        ("next_observation", Dtype::F32, table(&s.next_observation), floats(&s.next_observation)),
        ("terminated", Dtype::BOOL, vec![rows], flags(&s.terminated)),
        ("truncated", Dtype::BOOL, vec![rows], flags(&s.truncated)),
    ];
    let views = columns.iter().filter_map(|(name, dtype, shape, bytes)| {
        Some((*name, TensorView::new(*dtype, shape.clone(), bytes).ok()?))
    });
    let metadata = [("batch", s.batch.to_string()), ("student", s.student.clone())];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    // Columns as long as their shapes say are all that it asks for.
    serialize(views, Some(metadata)).unwrap_or_default()
}

/// The name of a batch's student, and how many transitions it has.
pub(super) fn names(bytes: &[u8]) -> Option<(String, usize)> {
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let student = header.metadata().as_ref()?.get("student")?.clone();
    let rows = *header.info("reward")?.shape.first()?;
    Some((student, rows))
}

pub(super) fn decode(bytes: &[u8], batch: BatchId) -> Result<Submission, String> {
    let text = |error: safetensors::SafeTensorError| error.to_string();
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(text)?;
    let file = SafeTensors::deserialize(bytes).map_err(text)?;
    let column = |name: &str, dtype: Dtype| {
        let tensor = file.tensor(name).map_err(text)?;
        match tensor.dtype() == dtype {
            true => Ok(tensor.data().to_vec()),
            false => Err(format!("{name} holds {:?}, expected {dtype:?}", tensor.dtype())),
        }
    };
    let floats = |name: &str| -> Result<Vec<f32>, String> {
        Ok(column(name, Dtype::F32)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let flags = |name: &str| {
        Ok::<_, String>(column(name, Dtype::BOOL)?.into_iter().map(|b| b != 0).collect::<Vec<_>>())
    };
    let names = header.metadata().as_ref();
    let name =
        |key: &str| names.and_then(|m| m.get(key)).cloned().ok_or(format!("it does not name its {key}"));
    if name("batch")? != batch.to_string() {
        return Err(format!("it holds batch {}", name("batch")?));
    }
    let submission = Submission {
        batch,
        student: name("student")?,
        observation: floats("observation")?,
        action: floats("action")?,
        reward: floats("reward")?,
        next_observation: floats("next_observation")?,
        terminated: flags("terminated")?,
        truncated: flags("truncated")?,
    };
    match submission.is_whole() {
        true => Ok(submission),
        false => Err("its columns are of different lengths, or not finite".into()),
    }
}
