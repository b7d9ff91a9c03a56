//! Small files that people write: settings, rights, tokens, certificates. A path may name anything: a folder, a device without an end, a
//! pipe without a writer, a file of gigabytes. [`read`] ends soon and holds little memory for each of them.
//!
//! A pipe is read too, so that `<(command)` of a shell works.

use std::fmt;
use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// The largest file of settings, in bytes.
pub const MAX_SETTINGS: u64 = 1 << 20;
/// The largest list, such as access rights or a bundle of certificates, in bytes.
pub const MAX_LIST: u64 = 16 << 20;
/// The largest token, in bytes.
pub const MAX_TOKEN: u64 = 64 << 10;
/// The time in which a pipe must end.
pub const PIPE_TIME: Duration = Duration::from_secs(10);

/// Why a path was not read. It is the inner error of the [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It names something else than a file or a pipe: what it is.
    Kind(&'static str),
    /// It has more bytes.
    Large {
        /// The limit.
        most: u64,
        /// The file's length, where it is known.
        found: Option<u64>,
    },
    /// A pipe did not end in this time.
    Late(Duration),
    /// It is not UTF-8; the first byte that is not.
    Text(usize),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Kind(got) => write!(f, "expected a file or a pipe, got {got}"),
            Unreadable::Large { most, found: Some(found) } => {
                write!(f, "expected at most {most} bytes, got {found}")
            }
            Unreadable::Large { most, found: None } => write!(f, "expected at most {most} bytes, got more"),
            Unreadable::Late(time) => {
                write!(f, "expected the end of the pipe within {} s, got none", time.as_secs_f32())
            }
            Unreadable::Text(at) => write!(f, "expected text in UTF-8, got other bytes at {at}"),
        }
    }
}

impl std::error::Error for Unreadable {}

impl Unreadable {
    /// The reason inside an error of [`read`], where the operating system did not give it.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Unreadable> for io::Error {
    fn from(why: Unreadable) -> Self {
        let kind = match why {
            Unreadable::Kind(_) => io::ErrorKind::InvalidInput,
            Unreadable::Large { .. } => io::ErrorKind::FileTooLarge,
            Unreadable::Late(_) => io::ErrorKind::TimedOut,
            Unreadable::Text(_) => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, why)
    }
}

/// Reads a regular file, or a pipe to its end, of at most `most` bytes.
///
/// # Errors
/// What the operating system says, and [`Unreadable`].
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_within(path, most, PIPE_TIME)
}

/// The same of a text in UTF-8.
///
/// # Errors
/// As [`read`].
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?)
        .map_err(|error| Unreadable::Text(error.utf8_error().valid_up_to()).into())
}

/// Opens a regular file. Opening anything else, such as a pipe, could take for ever.
///
/// # Errors
/// As [`read`].
pub fn open(path: &Path) -> io::Result<File> {
    let found = std::fs::metadata(path)?;
    match found.is_file() {
        true => File::open(path),
        false => Err(Unreadable::Kind(kind(found.file_type())).into()),
    }
}

/// [`read`] of a regular file alone: of a pipe, too, it says that it is none.
///
/// # Errors
/// As [`read`].
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    take_at_most(open(path)?, most)
}

/// [`read`], where a pipe must end in this time.
///
/// # Errors
/// As [`read`].
pub fn read_within(path: &Path, most: u64, time: Duration) -> io::Result<Vec<u8>> {
    let found = std::fs::metadata(path)?.file_type();
    match found.is_file() {
        true => take_at_most(File::open(path)?, most),
        false if is_pipe(found) => {
            let path = path.to_owned();
            within(time, move || take_at_most(File::open(path)?, most))
        }
        false => Err(Unreadable::Kind(kind(found)).into()),
    }
}

fn take_at_most(file: File, most: u64) -> io::Result<Vec<u8>> {
    let found = file.metadata()?.len();
    if found > most {
        return Err(Unreadable::Large { most, found: Some(found) }.into());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(found).unwrap_or(usize::MAX))?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(Unreadable::Large { most, found: None }.into()),
        false => Ok(bytes),
    }
}

/// Does something that may wait for a peer, such as opening a pipe, in a thread of its own. The thread is left behind if it takes longer
/// than `time`.
///
/// # Errors
/// What `work` says, and [`Unreadable::Late`].
pub fn within<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (say, heard) = sync_channel(1);
    std::thread::Builder::new().name("pipe".into()).spawn(move || drop(say.send(work())))?;
    heard.recv_timeout(time).unwrap_or_else(|_| Err(Unreadable::Late(time).into()))
}

/// Whether it is a named pipe, or one between processes.
pub fn is_pipe(found: FileType) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileTypeExt::is_fifo(&found)
    }
    #[cfg(not(unix))]
    {
        _ = found;
        false
    }
}

/// What a path names, in words.
pub fn kind(found: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if found.is_socket() {
            return "a socket";
        }
        if found.is_char_device() || found.is_block_device() {
            return "a device";
        }
    }
    match () {
        () if found.is_dir() => "a folder",
        () if is_pipe(found) => "a pipe",
        () if found.is_file() => "a file",
        () => "something else",
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Instant;

    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("oto-file-{}-{test}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Place(path)
        }

        fn pipe(&self) -> PathBuf {
            let path = self.0.join("pipe");
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn why(read: io::Result<Vec<u8>>) -> Unreadable {
        Unreadable::of(&read.unwrap_err()).unwrap().clone()
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let place = Place::new("file");
        let path = place.0.join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        assert_eq!(why(read(&path, 4)), Unreadable::Large { most: 4, found: Some(5) });
        // A sparse file takes no room on the disk, and none in memory.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(why(read(&path, MAX_LIST)), Unreadable::Large { most: MAX_LIST, found: Some(1 << 40) });
        std::fs::write(&path, b"ab\xff").unwrap();
        let error = read_text(&path, 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("UTF-8") && error.to_string().ends_with("at 2"), "{error}");
        assert_eq!(read(&place.0.join("none"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
        // A file that says it is empty and is not.
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_file_is_named() {
        let place = Place::new("kinds");
        let socket = place.0.join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, got) in [
            (Path::new("/dev/zero"), "a device"),
            (Path::new("/dev/null"), "a device"),
            (&place.0, "a folder"),
            (&socket, "a socket"),
        ] {
            assert_eq!(why(read(path, 5)), Unreadable::Kind(got));
            assert_eq!(why(read_regular(path, 5)), Unreadable::Kind(got));
        }
        assert_eq!(why(read_regular(&place.pipe(), 5)), Unreadable::Kind("a pipe"));
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_has_a_limit_and_a_time() {
        let place = Place::new("pipe");
        let path = place.pipe();
        let write = |bytes: usize, pause: Duration| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut to = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                // A reader that has enough closes the pipe.
                drop(io::Write::write_all(&mut to, &vec![b'x'; bytes]));
                std::thread::sleep(pause);
            })
        };
        let writer = write(100_000, Duration::ZERO);
        assert_eq!(read(&path, 100_000).unwrap().len(), 100_000);
        writer.join().unwrap();
        let writer = write(100_000, Duration::ZERO);
        assert_eq!(why(read(&path, 99_999)), Unreadable::Large { most: 99_999, found: None });
        writer.join().unwrap();
        // One that stays open.
        let (short, began) = (Duration::from_millis(50), Instant::now());
        let writer = write(3, Duration::from_millis(400));
        assert_eq!(why(read_within(&path, 9, short)), Unreadable::Late(short));
        writer.join().unwrap();
        // One that nobody writes to.
        assert_eq!(why(read_within(&path, 9, short)), Unreadable::Late(short));
        assert!(began.elapsed() < PIPE_TIME);
        // The thread that waits for a writer ends with one.
        drop(std::fs::OpenOptions::new().write(true).open(&path).unwrap());
    }
}
