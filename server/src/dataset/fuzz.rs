//! What must hold of the log's records and batches whatever the bytes are; `tests/fuzz` calls it, and learns whether they were accepted.

use super::batch::{decode, encode, names};
use super::log::{Record, Salt, WORK, Walked, encode as encode_record, first_offset, walk};
use oto_proto::BatchId;

/// A segment: whole records and damaged ranges are all of its bytes, each once and in order, a record is written as it was read, and finding them is little work.
pub fn segment(bytes: &[u8]) -> bool {
    let Some((start, records)) = bytes.split_at_checked(first_offset() as usize) else { return false };
    let salt: Salt = std::array::from_fn(|i| start[8 + i]);
    let mut ranges = Vec::new();
    let mut whole = 0;
    let walked = walk(records, salt, |begins, record: Record<'_>| {
        let written = encode_record(&record, salt);
        assert_eq!(records[begins..][..written.len()], written, "a record is written as it was read");
        ranges.push(begins..begins + written.len());
        names(record.payload);
        whole += 1;
        Ok(())
    });
    let Walked { damaged, hashed } = walked.expect("nothing was refused");
    assert!(hashed <= WORK * records.len() as u64, "{hashed} bytes went through a checksum");
    ranges.extend(damaged);
    ranges.sort_unstable_by_key(|range| range.start);
    let end = ranges.iter().fold(0, |end, range| {
        assert_eq!(range.start, end, "each byte belongs to one range");
        assert!(range.end > end, "no range is empty");
        range.end
    });
    assert_eq!(end, records.len());
    whole > 0
}

/// A segment of these records, for a corpus: each is the name of a batch and its payload.
pub fn written_segment(batches: &[(u128, &[u8])]) -> Vec<u8> {
    use super::log::Kind;
    let salt = [7; 8];
    let mut bytes = [&b"OTOLOG1\n"[..], &salt].concat();
    for (name, payload) in batches {
        let batch = BatchId(*name);
        bytes.extend(encode_record(&Record { kind: Kind::Batch, batch, when: 1, payload }, salt));
        bytes.extend(encode_record(&Record { kind: Kind::Judged, batch, when: 2, payload: &[1] }, salt));
        bytes.extend(encode_record(&Record { kind: Kind::Forgotten, batch, when: 3, payload: &[] }, salt));
    }
    bytes
}

/// The payload of a batch's record: what is read is whole, and comes back when it is written.
pub fn batch(bytes: &[u8]) -> bool {
    names(bytes);
    let Ok(submission) = decode(bytes, BatchId(1)) else { return false };
    assert!(submission.is_whole());
    assert_eq!(decode(&encode(&submission), BatchId(1)), Ok(submission));
    true
}

/// The payload of a batch, for a corpus.
pub fn written_batch(submission: &super::Submission) -> Vec<u8> {
    encode(submission)
}
