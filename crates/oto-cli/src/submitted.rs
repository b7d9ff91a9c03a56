//! What students submitted to a server, in its folder: told of, deleted, and sealed into a dataset.

use crate::dataset::DatasetError;
use clap::Args;
use oto_agent::environments;
use oto_data::{DataError, Dataset, Episode, Metadata, check_target, write_folder, write_parquet_folder};
use oto_proto::BatchId;
use oto_server::dataset::{self, DatasetStore, State, Submission};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which folder, and whose transitions are to go.
#[derive(Args, Clone, Debug)]
pub struct SubmittedOptions {
    /// A policy's folder in the server's --accept-replay, or s3://BUCKET/PREFIX/POLICY; the server must not be running
    pub folder: String,
    /// Delete all transitions of this student
    #[arg(long, value_name = "STUDENT")]
    pub forget: Option<String>,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// What to seal, and where to keep it.
#[derive(Args, Clone, Debug)]
pub struct SealOptions {
    /// A policy's folder in the server's --accept-replay, or s3://BUCKET/PREFIX/POLICY; the server must not be running
    pub folder: String,
    /// Environment that the transitions are of
    #[arg(long)]
    pub env: String,
    /// Output folder; Minari looks for it at MINARI_DATASETS_PATH/ID
    #[arg(long)]
    pub out: PathBuf,
    /// Name of the dataset, such as CartPole/submitted-v0
    #[arg(long)]
    pub id: Option<String>,
    /// Take what is still in quarantine, too
    #[arg(long)]
    pub quarantine: bool,
    /// Write HDF5 instead of Parquet
    #[arg(long)]
    pub hdf5: bool,
}

/// Opening a folder makes what is missing in it, so it has to be there.
fn open(folder: &str) -> Result<Arc<dyn DatasetStore>, DatasetError> {
    if !folder.starts_with("s3://") && !Path::new(folder).is_dir() {
        return Err(DatasetError::NoFolder(folder.into()));
    }
    let store = dataset::open(folder, u64::MAX)?;
    for damage in store.damage() {
        let range = &damage.bytes;
        crate::note!("segment {}: bytes {} to {} cannot be read", damage.segment, range.start, range.end);
    }
    for lost in store.lost() {
        let (batches, transitions, names) = (lost.batches.len(), lost.transitions, some_names(&lost.batches));
        crate::note!(
            "{:?}: {batches} batches with {transitions} transitions are damaged or gone: {names}",
            lost.student
        );
    }
    Ok(store)
}

/// The names of batches, as far as a line has room for them.
pub(crate) fn some_names(batches: &[BatchId]) -> String {
    const SOME: usize = 8;
    let mut names: Vec<String> = batches.iter().take(SOME).map(BatchId::to_string).collect();
    if batches.len() > SOME {
        names.push(format!("and {} more", batches.len() - SOME));
    }
    names.join(", ")
}

/// A student's name as one field of a table: quoted, so that nothing in it moves the cursor or passes for another field, and not longer
/// than the column.
fn quoted(name: &str) -> String {
    const WIDTH: usize = 22;
    let mut quoted = String::from("\"");
    for c in name.chars() {
        let next: String = c.escape_debug().collect();
        if quoted.chars().count() + next.chars().count() > WIDTH {
            return quoted + "\"...";
        }
        quoted.push_str(&next);
    }
    quoted + "\""
}

/// Tells what a folder holds, after deleting what is to go.
pub fn submitted(options: &SubmittedOptions) -> Result<(), DatasetError> {
    let store = open(&options.folder)?;
    if let Some(student) = &options.forget {
        let batches = store.forget(student)?;
        crate::note!("{student:?}: {batches} batches deleted");
    }
    let held = store.summary()?;
    if options.json {
        let rows = held.iter().map(|h| {
            serde_json::json!({"student": h.student, "state": h.state.name(), "batches": h.batches,
                "transitions": h.transitions, "bytes": h.bytes})
        });
        crate::out!("{}", rows.collect::<serde_json::Value>());
        return Ok(());
    }
    crate::out!("{:<26} {:<12} {:>8} {:>12} {:>12}", "student", "state", "batches", "transitions", "bytes");
    for h in held {
        crate::out!(
            "{:<26} {:<12} {:>8} {:>12} {:>12}",
            quoted(&h.student),
            h.state.name(),
            h.batches,
            h.transitions,
            h.bytes
        );
    }
    Ok(())
}

/// Writes the accepted batches as a dataset in Minari's layout.
pub fn seal(options: &SealOptions) -> Result<(), DatasetError> {
    check_target(&options.out, options.id.as_deref())?;
    let environment = environments::environment(&options.env).map_err(DataError::from)?;
    let store = open(&options.folder)?;
    let states: &[State] =
        if options.quarantine { &[State::Accepted, State::Quarantine] } else { &[State::Accepted] };
    let mut students: BTreeMap<String, Vec<Submission>> = BTreeMap::new();
    for state in states {
        for batch in store.list(*state)? {
            let submission = store.read(batch)?;
            students.entry(submission.student.clone()).or_default().push(submission);
        }
    }
    let dataset = Dataset {
        observation: environment.observation_space().clone(),
        action: environment.action_space().clone(),
        episodes: students.values().flat_map(|submissions| episodes(submissions)).collect(),
        metadata: Metadata {
            id: options.id.clone(),
            environment: Some(environments::id(&options.env).into()),
            algorithm: Some(format!("{} students", students.len())),
            description: Some("Transitions that students submitted.".into()),
            ..Metadata::default()
        },
    };
    dataset.fits(environment.observation_space(), environment.action_space())?;
    let write = if options.hdf5 { write_folder } else { write_parquet_folder };
    write(&dataset, &options.out)?;
    crate::out!("{}: {} episodes, {} steps", options.out.display(), dataset.episodes.len(), dataset.len());
    Ok(())
}

/// A student's batches as the pieces of episodes that they are: a piece goes on as long as each step begins where the one before
/// led, also from one batch to the next.
pub fn episodes(submissions: &[Submission]) -> Vec<Episode> {
    let rows: Vec<Row<'_>> = submissions.iter().flat_map(rows).collect();
    let (mut episodes, mut episode) = (Vec::new(), Episode::default());
    for (i, row) in rows.iter().enumerate() {
        let goes_on = rows.get(i + 1).is_some_and(|next| next.observation == row.next_observation)
            && !row.terminated
            && !row.truncated;
        episode.observations.push(row.observation);
        episode.actions.extend_from_slice(row.action);
        episode.rewards.push(row.reward.into());
        episode.terminated.push(row.terminated);
        episode.truncated.push(!goes_on && !row.terminated);
        if !goes_on {
            episode.observations.push(row.next_observation);
            episodes.push(std::mem::take(&mut episode));
        }
    }
    episodes
}

/// One transition of a submission.
struct Row<'a> {
    observation: &'a [f32],
    action: &'a [f32],
    reward: f32,
    next_observation: &'a [f32],
    terminated: bool,
    truncated: bool,
}

fn rows(s: &Submission) -> impl Iterator<Item = Row<'_>> {
    let (width, numbers) = (s.observation.len() / s.rows().max(1), s.action.len() / s.rows().max(1));
    (0..s.rows()).map(move |row| Row {
        observation: &s.observation[row * width..(row + 1) * width],
        action: &s.action[row * numbers..(row + 1) * numbers],
        reward: s.reward[row],
        next_observation: &s.next_observation[row * width..(row + 1) * width],
        terminated: s.terminated[row],
        truncated: s.truncated[row],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_data::read_file;
    use oto_server::dataset::LogStore;

    /// Steps from each number to the next one.
    fn steps(batch: u128, from: f32, count: usize, terminated: bool) -> Submission {
        let numbers = |first: f32| (0..count).flat_map(move |i| [first + i as f32; 4]).collect::<Vec<_>>();
        Submission {
            batch: BatchId(batch),
            student: "tab".into(),
            observation: numbers(from),
            action: vec![1.0; count],
            reward: vec![1.0; count],
            next_observation: numbers(from + 1.0),
            terminated: (0..count).map(|i| terminated && i + 1 == count).collect(),
            truncated: vec![false; count],
        }
    }

    #[test]
    fn pieces_of_episodes_are_joined_over_batches() {
        let batches = [
            steps(1, 0.0, 3, false),
            steps(2, 3.0, 2, true),
            steps(3, 5.0, 2, false),
            steps(4, 20.0, 1, false),
        ];
        let episodes = episodes(&batches);
        assert_eq!(episodes.iter().map(Episode::len).collect::<Vec<_>>(), [5, 2, 1]);
        assert_eq!((episodes[0].terminated[4], episodes[0].truncated[4]), (true, false));
        assert_eq!((episodes[1].terminated[1], episodes[1].truncated[1]), (false, true));
        assert_eq!(episodes[0].observations.len(), 6 * 4);
    }

    #[test]
    fn a_name_stays_in_its_field() {
        for (name, shown) in [
            ("oto-0", r#""oto-0""#),
            ("\x1b[31mred\x1b[0m", r#""\u{1b}[31mred\u{1b}[0"..."#),
            ("a\nb\rc\td", r#""a\nb\rc\td""#),
            ("\"quoted\" \\", r#""\"quoted\" \\""#),
            ("\u{202e}gnp.exe", r#""\u{202e}gnp.exe""#),
            ("\u{9b}31m", r#""\u{9b}31m""#),
        ] {
            assert_eq!(quoted(name), shown);
        }
        for name in ["x".repeat(256), "\x1b".repeat(256), "\u{1F600}".repeat(64)] {
            let shown = quoted(&name);
            assert!(
                shown.ends_with("\"...") && shown.chars().count() <= 26 && !shown.contains('\x1b'),
                "{shown}"
            );
        }
    }

    #[test]
    fn what_was_accepted_is_sealed() {
        let folder = std::env::temp_dir().join(format!("oto-seal-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let (submissions, out) = (folder.join("submitted"), folder.join("sealed"));
        let store = LogStore::open(&submissions, 1 << 20).unwrap();
        for (name, from) in [(1, 0.0), (2, 3.0), (3, 50.0)] {
            store.put(&steps(name, from, 3, name == 2)).unwrap();
        }
        [1, 2].into_iter().for_each(|name| store.judge(BatchId(name), State::Accepted).unwrap());
        drop(store);
        let mut options = SealOptions {
            folder: submissions.to_string_lossy().into(),
            env: "CartPole-v1".into(),
            out: out.clone(),
            id: Some("CartPole/submitted-v0".into()),
            quarantine: false,
            hdf5: false,
        };
        seal(&options).unwrap();
        let dataset = read_file(&out).unwrap();
        assert_eq!((dataset.episodes.len(), dataset.len()), (1, 6));
        assert_eq!(dataset.metadata.environment.as_deref(), Some("CartPole-v1"));
        assert!(matches!(seal(&options), Err(DatasetError::Data(DataError::Exists { .. }))));
        (options.out, options.quarantine, options.hdf5) = (folder.join("all"), true, true);
        seal(&options).unwrap();
        assert_eq!(read_file(&options.out).unwrap().episodes.len(), 2);
        options.folder = folder.join("nowhere").to_string_lossy().into();
        options.out = folder.join("more");
        assert!(matches!(seal(&options), Err(DatasetError::NoFolder(_))));
        options.folder = "s3://".into();
        let error = seal(&options).unwrap_err().to_string();
        assert!(error.contains("s3://BUCKET/PREFIX"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
