//! A file that lines are added to, and that is put aside when it is full: `PATH` becomes `PATH.1`, what was `PATH.1` becomes
//! `PATH.2`, and the oldest is overwritten. Each has whole lines, so that it can be read by itself.
//!
//! Others may rename the file, remove it or empty it (logrotate), and other processes may write to it: before each line it is
//! looked up what the path names.

use crate::observe::log_throttle::LogThrottle;
use oto_json::file::{PIPE_TIME, is_pipe, within};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tracing::warn;

/// How much is kept of a file that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A line that would make the file larger begins a new one; 0: none does. A line that is larger itself has a file of its own.
    pub bytes: u64,
    /// Files put aside that are kept, at least one.
    pub keep: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation { bytes: 64 << 20, keep: 8 }
    }
}

/// The file.
pub(crate) struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    identity: Identity,
    /// Whether the last line in it may have no end.
    torn: bool,
    /// It could not be put aside.
    stuck: LogThrottle,
}

impl Rotated {
    /// Opens the file to go on at its end, or makes it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let (file, identity) = open(path)?;
        // What a link names is put aside where it is, and the link stays.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let torn = ends_torn(&path);
        Ok(Rotated { path, rotation, file, identity, torn, stuck: LogThrottle::default() })
    }

    /// Adds a line. Where the file cannot be put aside it grows, and the log says so.
    ///
    /// # Errors
    /// If the line is not in the file, or only a part of it.
    pub fn add(&mut self, line: &str) -> io::Result<()> {
        let size = self.look()?;
        let full = self.rotation.bytes > 0 && size > 0 && size + line.len() as u64 + 1 > self.rotation.bytes;
        if full
            && let Err(error) = self.put_aside()
            && let Some(times) = self.stuck.again()
        {
            let (path, error) = (&*self.path.to_string_lossy(), error.to_string());
            warn!(path, error, times, "a full file cannot be put aside and grows");
        }
        let begin = if std::mem::take(&mut self.torn) { "\n" } else { "" };
        let written = self.file.write_all(format!("{begin}{line}\n").as_bytes());
        if written.is_err() {
            self.torn = ends_torn(&self.path);
        }
        written
    }

    /// Sees to it that the file is the one that its path names, and gives its size.
    fn look(&mut self) -> io::Result<u64> {
        if let Ok(named) = fs::metadata(&self.path)
            && identity(&named) == self.identity
        {
            // An emptied file has no torn line any more.
            self.torn &= named.len() > 0;
            return Ok(named.len());
        }
        self.reopen()?;
        Ok(self.file.metadata()?.len())
    }

    fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.identity) = open(&self.path)?;
        self.torn = ends_torn(&self.path);
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        // Another process may be about to do the same. Where files cannot be locked there should be none.
        let full = self.file.try_clone()?;
        drop(full.lock());
        if fs::metadata(&self.path).is_ok_and(|named| identity(&named) == self.identity) {
            // Where a number is free, as after a crash between two renames, nothing has to be overwritten.
            let aside = |number| aside(&self.path, number);
            let free = (1..self.rotation.keep).find(|number| !aside(*number).exists());
            for number in (1..free.unwrap_or(self.rotation.keep)).rev() {
                fs::rename(aside(number), aside(number + 1))?;
            }
            fs::rename(&self.path, aside(1))?;
        }
        self.reopen()
    }
}

/// Where a file is put aside.
fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open(path: &Path) -> io::Result<(File, Identity)> {
    let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
    let file = match fs::metadata(path) {
        // It opens when somebody reads from it.
        Ok(found) if is_pipe(found.file_type()) => {
            let path = path.to_owned();
            within(PIPE_TIME, move || open(&path))?
        }
        _ => open(path)?,
    };
    let identity = identity(&file.metadata()?);
    Ok((file, identity))
}

/// Whether a file's last line has no end. One that cannot be read is taken to be whole.
fn ends_torn(path: &Path) -> bool {
    let mut last = [b'\n'];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last != [b'\n']
}

/// What tells a file from another one that has its name later.
#[cfg(unix)]
type Identity = [u64; 2];
#[cfg(not(unix))]
type Identity = ();

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    [metadata.dev(), metadata.ino()]
}

/// Elsewhere an open file keeps its name.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("oto-rotated-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn path(&self) -> PathBuf {
            self.0.join("lines")
        }

        fn open(&self, bytes: u64, keep: u32) -> Rotated {
            Rotated::open(&self.path(), Rotation { bytes, keep }).unwrap()
        }

        /// The text of the file and of those put aside, the newest first.
        fn all(&self) -> Vec<String> {
            let aside = (1..).map(|number| aside(&self.path(), number));
            std::iter::once(self.path())
                .chain(aside)
                .map_while(|path| fs::read_to_string(path).ok())
                .collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn add(file: &mut Rotated, lines: &[&str]) {
        lines.iter().for_each(|line| file.add(line).unwrap());
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let folder = Folder::new();
        let mut file = folder.open(6, 2);
        add(&mut file, &["a", "b", "c"]);
        assert_eq!(folder.all(), ["a\nb\nc\n"], "six bytes are not too many");
        add(&mut file, &["d", "longer than six", "e", "f"]);
        assert_eq!(folder.all(), ["e\nf\n", "longer than six\n", "d\n"], "the first three are gone");
    }

    #[test]
    fn who_opens_it_again_goes_on_where_it_was() {
        let folder = Folder::new();
        add(&mut folder.open(6, 3), &["a", "b"]);
        add(&mut folder.open(6, 3), &["c", "d"]);
        assert_eq!(folder.all(), ["d\n", "a\nb\nc\n"]);
        // What a crash tore off does not become a part of another line.
        fs::write(folder.path(), "tor").unwrap();
        add(&mut folder.open(60, 3), &["e"]);
        assert_eq!(folder.all()[0], "tor\ne\n");
    }

    #[test]
    fn a_crash_between_two_renames_costs_nothing() {
        let folder = Folder::new();
        add(&mut folder.open(2, 4), &["a", "b", "c", "d"]);
        assert_eq!(folder.all(), ["d\n", "c\n", "b\n", "a\n"]);
        // It ended when two of four were renamed.
        fs::rename(aside(&folder.path(), 3), aside(&folder.path(), 4)).unwrap();
        fs::rename(aside(&folder.path(), 2), aside(&folder.path(), 3)).unwrap();
        add(&mut folder.open(2, 4), &["e"]);
        assert_eq!(folder.all(), ["e\n", "d\n", "c\n", "b\n", "a\n"]);
    }

    #[cfg(unix)]
    #[test]
    fn who_renames_removes_or_empties_it_is_served() {
        let folder = Folder::new();
        let (path, elsewhere) = (folder.path(), folder.0.join("elsewhere"));
        let mut file = folder.open(100, 3);
        add(&mut file, &["a"]);
        fs::rename(&path, &elsewhere).unwrap();
        add(&mut file, &["b"]);
        assert_eq!(
            (folder.all(), fs::read_to_string(&elsewhere).unwrap()),
            (vec!["b\n".into()], "a\n".into())
        );
        fs::write(&path, "").unwrap();
        add(&mut file, &["c"]);
        assert_eq!(folder.all(), ["c\n"], "at the beginning, not behind a hole");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(file.add("lost").is_err());
        fs::remove_dir(&path).unwrap();
        add(&mut file, &["d"]);
        assert_eq!(folder.all(), ["d\n"]);
    }

    #[cfg(unix)]
    #[test]
    fn what_a_link_names_is_put_aside_where_it_is() {
        let folder = Folder::new();
        let link = folder.0.join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        add(&mut Rotated::open(&link, Rotation { bytes: 2, keep: 1 }).unwrap(), &["a", "b"]);
        assert_eq!(
            (folder.all(), fs::read_to_string(&link).unwrap()),
            (vec!["b\n".into(), "a\n".into()], "b\n".into())
        );
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_grows() {
        let folder = Folder::new();
        fs::create_dir(aside(&folder.path(), 1)).unwrap();
        add(&mut folder.open(2, 1), &["a", "b"]);
        assert_eq!(fs::read_to_string(folder.path()).unwrap(), "a\nb\n");
    }

    /// As from many processes: each has opened the file for itself.
    #[cfg(unix)]
    #[test]
    fn many_who_write_to_it_lose_nothing_and_keep_the_limit() {
        let folder = Folder::new();
        let (writers, lines, bytes) = (4_u32, 200_u32, 100);
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let mut file = folder.open(bytes, 1000);
                scope.spawn(move || (0..lines).for_each(|i| file.add(&format!("{writer} {i:04}")).unwrap()));
            }
        });
        let all = folder.all();
        let mut counted = vec![0; writers as usize];
        for line in all.iter().rev().flat_map(|text| text.lines()) {
            let (writer, i) = line.split_once(' ').unwrap();
            assert!(i.len() == 4 && i.parse::<u32>().unwrap() < lines, "{line}");
            counted[writer.parse::<usize>().unwrap()] += 1;
        }
        assert_eq!(counted, vec![lines; writers as usize]);
        assert!(
            all.iter().all(|text| text.len() as u64 <= bytes + u64::from(writers) * 7),
            "each may be about to write"
        );
    }
}
