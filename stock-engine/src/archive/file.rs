//! The files of an archive: gzip with one JSON entry per line, and a manifest beside them.
//!
//! A file appears under its name only when it is complete and on disk. The manifest has one line
//! per file; a second attempt at the file replaces its line.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use stock_common::id::Position;
use stock_domain::account::Account;
use stock_domain::journal::Entry;
use stock_domain::posting::Posted;
use stock_mysql::archives::Archive;

use super::ArchiveError;

const MANIFEST: &str = "manifest.jsonl";

/// Adds the path to an error.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> ArchiveError + '_ {
    |error| ArchiveError::File(path.display().to_string(), error)
}

/// An entry as a file holds it.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Line<Box<RawValue>>")]
pub struct ArchivedEntry {
    /// Its position in the journal.
    pub position: Position,
    /// Its number within the shard.
    pub number: u64,
    /// Its postings.
    pub postings: Vec<Posted>,
    /// The payload, byte for byte as the journal had it.
    pub payload: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
struct Line<P> {
    position: Position,
    number: u64,
    postings: Vec<PostingLine>,
    payload: P,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostingLine {
    account: String,
    seq: u64,
    delta: i64,
    balance_after: i64,
}

impl From<&Posted> for PostingLine {
    fn from(posted: &Posted) -> Self {
        Self {
            account: posted.account.to_string(),
            seq: posted.seq,
            delta: posted.delta,
            balance_after: posted.balance_after,
        }
    }
}

impl TryFrom<Line<Box<RawValue>>> for ArchivedEntry {
    type Error = String;

    fn try_from(line: Line<Box<RawValue>>) -> Result<Self, Self::Error> {
        let posted = |of: PostingLine| {
            let account = Account::parse(&of.account).ok_or(of.account)?;
            Ok(Posted {
                account,
                seq: of.seq,
                delta: of.delta,
                balance_after: of.balance_after,
            })
        };
        let postings = line.postings.into_iter().map(posted);
        Ok(Self {
            position: line.position,
            number: line.number,
            postings: postings.collect::<Result<_, String>>()?,
            payload: line.payload,
        })
    }
}

fn line(entry: &Entry) -> io::Result<Vec<u8>> {
    let payload: &RawValue = serde_json::from_slice(&entry.payload)?;
    let mut text = serde_json::to_vec(&Line {
        position: entry.position,
        number: entry.number,
        postings: entry.postings.iter().map(PostingLine::from).collect(),
        payload,
    })?;
    if text.contains(&b'\n') {
        return Err(io::Error::other("a payload has more than one line"));
    }
    text.push(b'\n');
    Ok(text)
}

/// A file that is being written, under a temporary name until it is complete.
pub(super) struct Writer {
    out: GzEncoder<BufWriter<File>>,
    part: PathBuf,
    whole: PathBuf,
    folder: PathBuf,
    first: Option<Position>,
}

impl Writer {
    pub(super) fn create(folder: &Path, name: &str) -> Result<Self, ArchiveError> {
        let part = folder.join(format!(".{name}.part"));
        let file = File::create(&part).map_err(at(&part))?;
        Ok(Self {
            out: GzEncoder::new(BufWriter::new(file), Compression::default()),
            whole: folder.join(name),
            folder: folder.to_owned(),
            part,
            first: None,
        })
    }

    pub(super) fn write(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        self.first.get_or_insert(entry.position);
        let written = line(entry).and_then(|line| self.out.write_all(&line));
        written.map_err(at(&self.part))
    }

    /// Finishes the file, brings it to disk under its name, and returns its checksum. An existing
    /// file of that name is replaced if it begins with the same entry, because a killed run left
    /// it. Any other file belongs to another journal and stays.
    pub(super) fn finish(self) -> Result<String, ArchiveError> {
        let file = self.out.finish().and_then(|out| Ok(out.into_inner()?));
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(at(&self.part))?;
        if self.whole.exists() {
            let left = read(&self.whole).ok().and_then(|mut all| all.next()?.ok());
            if left.map(|entry| entry.position) != self.first {
                return Err(ArchiveError::Foreign(self.whole.display().to_string()));
            }
        }
        fs::rename(&self.part, &self.whole).map_err(at(&self.whole))?;
        sync(&self.folder)?;
        checksum(&self.whole).map_err(at(&self.whole))
    }
}

/// Brings a folder's list of files to disk.
fn sync(folder: &Path) -> Result<(), ArchiveError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(at(folder))
}

/// SHA-256 of a file, as 64 hexadecimal digits.
pub(super) fn checksum(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut digest, mut part) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(part.get(..read).unwrap_or_default());
    }
}

/// Reads a file's entries, in the order of their numbers.
///
/// # Errors
/// When the file cannot be opened. Each item fails when its line cannot be read.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = io::Result<ArchivedEntry>> + use<>> {
    let file = GzDecoder::new(BufReader::new(File::open(path)?));
    let entry = |line: io::Result<String>| Ok(serde_json::from_str(&line?)?);
    Ok(BufReader::new(file).lines().map(entry))
}

/// Writes a file's line into the manifest, in place of an earlier one.
pub(super) fn list(folder: &Path, archive: &Archive) -> Result<(), ArchiveError> {
    let (path, part) = (
        folder.join(MANIFEST),
        folder.join(format!(".{MANIFEST}.part")),
    );
    let write = || {
        let known = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        // `file` is the first member of a line, and a file name needs no escapes.
        let mine = format!(r#"{{"file":"{}","#, archive.file);
        let mut out = File::create(&part)?;
        for line in known.lines().filter(|line| !line.starts_with(&mine)) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", serde_json::to_string(archive)?)?;
        out.sync_all()?;
        fs::rename(&part, &path)
    };
    write().map_err(at(&path))?;
    sync(folder)
}
