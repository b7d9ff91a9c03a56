//! Minari's layout of Parquet files: what is written is read, whatever else lies there is refused.

use oto_data::{DataError, Dataset, read_file, write_parquet_folder};
use std::fs;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> Dataset {
    read_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    folder
}

#[test]
fn what_is_written_is_read() {
    for name in ["cartpole_random", "inverted_pendulum_medium"] {
        let (dataset, folder) = (fixture(name), folder(name));
        write_parquet_folder(&dataset, &folder).unwrap();
        assert_eq!(read_file(&folder).unwrap(), dataset);
        assert_eq!(read_file(&folder.join("data")).unwrap(), dataset);
        assert!(matches!(write_parquet_folder(&dataset, &folder), Err(DataError::Exists { .. })));
    }
}

#[test]
fn damage_is_an_error() {
    let (mut dataset, folder) = (fixture("cartpole_random"), folder("damaged"));
    dataset.episodes.truncate(3);
    write_parquet_folder(&dataset, &folder).unwrap();
    let part = folder.join("data/1/part-0.parquet");
    let whole = fs::read(&part).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&part, bytes).unwrap();
        match read_file(&folder) {
            // Numbers are not protected by a checksum: some of them may have changed.
            Ok(read) => assert_eq!(read.episodes.len(), 3),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    };
    for end in (0..whole.len()).step_by(3) {
        fs::write(&part, &whole[..end]).unwrap();
        assert!(read_file(&folder).is_err(), "cut off after {end} bytes");
    }
    for at in (0..whole.len()).step_by(13) {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            refused(&bytes);
        }
    }
    fs::remove_file(&part).unwrap();
    assert!(matches!(read_file(&folder), Err(DataError::Count { what: "episodes", expected: 3, got: 1 })));
}

#[test]
fn another_episodes_columns_do_not_fit() {
    let (mut dataset, folder) = (fixture("cartpole_random"), folder("mixed"));
    dataset.episodes.truncate(2);
    write_parquet_folder(&dataset, &folder).unwrap();
    let (mut other, elsewhere) = (fixture("inverted_pendulum_medium"), self::folder("other"));
    other.episodes.truncate(1);
    write_parquet_folder(&other, &elsewhere).unwrap();
    let copy = |from: &str, to: &str| fs::copy(elsewhere.join(from), folder.join(to)).unwrap();
    copy("data/0/part-0.parquet", "data/1/part-0.parquet");
    assert!(read_file(&folder).is_err(), "its actions are no choices");
    copy("data/metadata.json", "data/metadata.json");
    assert!(read_file(&folder).is_err(), "its steps are not so many");
}

/// An episode's rows in several files, a gap between the episodes, and counts that do not agree.
#[test]
fn missing_and_additional_files_are_named() {
    let (mut dataset, folder) = (fixture("cartpole_random"), folder("files"));
    dataset.episodes.truncate(3);
    write_parquet_folder(&dataset, &folder).unwrap();
    let more = folder.join("data/1/part-1.parquet");
    fs::copy(folder.join("data/2/part-0.parquet"), &more).unwrap();
    let refused = read_file(&folder).unwrap_err().to_string();
    assert_eq!(refused, "episode 1: several files, expected part-0.parquet alone");
    fs::remove_file(more).unwrap();
    let beside = folder.join("data/metadata.json");
    let text = fs::read_to_string(&beside).unwrap();
    fs::write(&beside, text.replace("\"total_steps\":", "\"total_steps\":1")).unwrap();
    assert!(matches!(read_file(&folder), Err(DataError::Count { what: "steps", .. })));
    fs::write(&beside, text).unwrap();
    fs::rename(folder.join("data/1"), folder.join("data/3")).unwrap();
    assert!(matches!(read_file(&folder), Err(DataError::Count { what: "episodes", expected: 3, got: 1 })));
}
