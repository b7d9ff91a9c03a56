//! What must hold of files whatever their bytes are; `tests/fuzz` calls it, and learns whether they were accepted. What is read is a dataset without a fault, and comes back
//! when it is written.

#[cfg(feature = "parquet")]
use crate::Episode;
use crate::{Dataset, minari, read_bytes};

/// An HDF5 file, with or without the text beside it.
pub fn hdf5(bytes: &[u8], metadata: Option<&str>) -> bool {
    let Ok(dataset) = read_bytes(bytes.to_vec(), metadata) else { return false };
    dataset.check().expect("what is read is without a fault");
    let written = minari::write(&dataset).expect("what is read can be written");
    let text = minari::write_metadata(&dataset, written.len(), "hdf5");
    let read = read_bytes(written, Some(&text)).expect("what was written can be read");
    assert_eq!((read.observation, read.action), (dataset.observation, dataset.action));
    assert_eq!(read.episodes, dataset.episodes);
    true
}

/// The Parquet file of an episode.
#[cfg(feature = "parquet")]
pub fn parquet(bytes: &[u8]) -> bool {
    use crate::minari::{Described, Shapes};
    use crate::parquet::{read_episode, write};
    let read = |bytes: Vec<u8>| {
        let described = Described::default();
        let (mut shapes, mut left) = (Shapes::of(&described), 1 << 20);
        let episode = read_episode("episode 0", bytes, &mut shapes, &mut left)?;
        minari::finish(described, shapes, vec![episode])
    };
    // As in `read_file`: the reader of Parquet is not this crate's.
    let Ok(Ok(dataset)) = std::panic::catch_unwind(|| read(bytes.to_vec())) else { return false };
    if dataset.check().is_err() {
        return false;
    }
    let episode = &dataset.episodes[0];
    let written = write(0, episode, &dataset).expect("an episode without a fault can be written");
    let again: Dataset = read(written).expect("what was written can be read");
    assert_eq!(again.episodes, [Episode { seed: None, ..episode.clone() }]);
    true
}

/// The bytes of a dataset's first episode as Parquet, for a corpus.
#[cfg(feature = "parquet")]
pub fn written_parquet(dataset: &Dataset) -> Vec<u8> {
    crate::parquet::write(0, &dataset.episodes[0], dataset).expect("a dataset without a fault")
}

/// The bytes of a dataset as HDF5 and the text beside it, for a corpus.
pub fn written_hdf5(dataset: &Dataset) -> (Vec<u8>, String) {
    let written = minari::write(dataset).expect("a dataset without a fault");
    let text = minari::write_metadata(dataset, written.len(), "hdf5");
    (written, text)
}
