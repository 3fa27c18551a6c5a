//! Programs and safetensors files: reading with care, writing as a whole or not at all.

use crate::fail::Failure;
use attnc_runtime::{Storage, Tensor, TensorView};
use safetensors::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Longest program that is read, in bytes; the parser has the same limit.
const MAX_PROGRAM: u64 = 4 << 20;

fn open(path: &Path) -> Result<(File, u64), Failure> {
    let file = File::open(path).map_err(|e| Failure::file(path, e))?;
    let meta = file.metadata().map_err(|e| Failure::file(path, e))?;
    if meta.is_dir() {
        return Err(Failure::file(path, "is a directory, not a file"));
    }
    Ok((file, meta.len()))
}

/// The text of a program.
///
/// Errors: files that cannot be read, are too long or not UTF-8.
pub fn program(path: &Path) -> Result<String, Failure> {
    let (file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_PROGRAM + 1).read_to_end(&mut bytes).map_err(|e| Failure::file(path, e))?;
    if bytes.len() as u64 > MAX_PROGRAM {
        return Err(Failure::file(path, format!("is longer than {} MiB, too long for a program", MAX_PROGRAM >> 20)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::file(path, format!("is not UTF-8 text: byte {at} is 0x{:02x}", e.as_bytes().get(at).copied().unwrap_or(0)))
    })
}

/// A whole safetensors file in memory. It is read, not mapped: a mapped file that another process cuts short would kill this one.
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl TensorFile {
    /// Reads `path`; fails when it does not fit the available memory.
    pub fn read(path: &Path) -> Result<TensorFile, Failure> {
        let (mut file, length) = open(path)?;
        let too_large = |available: u64| {
            let gib = |b: u64| b as f64 / f64::from(1u32 << 30);
            Failure::file(path, format!("has {:.2} GiB, and {:.2} GiB of memory are available", gib(length), gib(available)))
        };
        match attnc_runtime::memory::available() {
            Some(available) if length > available => return Err(too_large(available)),
            _ => {}
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length as usize).map_err(|_| too_large(0))?;
        file.read_to_end(&mut bytes).map_err(|e| Failure::file(path, e))?;
        Ok(TensorFile { path: path.to_path_buf(), bytes })
    }

    /// The tensors by name, sorted.
    ///
    /// Errors: anything but a well-formed file whose header and data agree, and dtypes that attnc does not take.
    pub fn tensors(&self) -> Result<Vec<(String, TensorView<'_>)>, Failure> {
        let bad = |what: String| Failure::file(&self.path, format!("is not a sound safetensors file: {what}"));
        if self.bytes.is_empty() {
            return Err(bad("it is empty".to_string()));
        }
        let file = SafeTensors::deserialize(&self.bytes).map_err(|e| bad(e.to_string()))?;
        let mut list = Vec::new();
        for (name, tensor) in file.iter() {
            let storage = storage(tensor.dtype()).ok_or_else(|| {
                let dtype = tensor.dtype();
                Failure::file(&self.path, format!("tensor `{name}` has dtype {dtype} and shape {:?}; attnc reads F32, F64, BF16, F16, I64, I32, U8", tensor.shape()))
            })?;
            let view = TensorView::from_bytes(storage, tensor.shape(), tensor.data()).map_err(|e| Failure::file(&self.path, format!("tensor `{name}`: {e}")))?;
            list.push((name.to_string(), view));
        }
        list.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(list)
    }
}

fn storage(dtype: Dtype) -> Option<Storage> {
    match dtype {
        Dtype::F32 => Some(Storage::F32),
        Dtype::F64 => Some(Storage::F64),
        Dtype::BF16 => Some(Storage::Bf16),
        Dtype::F16 => Some(Storage::F16),
        Dtype::I64 => Some(Storage::I64),
        Dtype::I32 => Some(Storage::I32),
        // A bool takes one byte, 0 or 1.
        Dtype::U8 | Dtype::BOOL => Some(Storage::U8),
        _ => None,
    }
}

fn file_dtype(storage: Storage) -> Dtype {
    match storage {
        Storage::F32 => Dtype::F32,
        Storage::F64 => Dtype::F64,
        Storage::Bf16 => Dtype::BF16,
        Storage::F16 => Dtype::F16,
        Storage::I64 => Dtype::I64,
        Storage::I32 => Dtype::I32,
        Storage::U8 => Dtype::U8,
    }
}

/// A file that will appear under its name when `commit` has written it all. Dropped before, it leaves nothing.
pub struct OutFile {
    path: PathBuf,
    temp: NamedTempFile,
}

impl OutFile {
    /// Makes the temporary file beside `path`, so that a place that cannot be written is found before any work is done.
    pub fn create(path: &Path) -> Result<OutFile, Failure> {
        let fail = |e: std::io::Error| Failure::file(path, format!("cannot be written: {e}"));
        let mut path = path.to_path_buf();
        if let Ok(meta) = std::fs::metadata(&path) {
            if !meta.is_file() {
                return Err(Failure::file(&path, "cannot be written: it is not a regular file"));
            }
            // Through a link: the file behind it is replaced, not the link.
            path = path.canonicalize().map_err(fail)?;
        }
        if path.file_name().is_none() {
            return Err(Failure::file(&path, "cannot be written: it is not the name of a file"));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".attnc-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Like any new file: the mask of the process takes the rest away.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temp = builder.tempfile_in(folder).map_err(fail)?;
        Ok(OutFile { temp, path })
    }

    /// Writes the tensors and puts the file in its place.
    pub fn commit_tensors<'a>(self, tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<(), Failure> {
        let views: Vec<(&str, TensorOut<'_>)> = tensors.map(|(name, tensor)| (name, TensorOut(tensor))).collect();
        safetensors::serialize_to_file(views, None, self.temp.path()).map_err(|e| Failure::file(&self.path, format!("cannot be written: {e}")))?;
        self.commit()
    }

    /// Writes bytes and puts the file in its place.
    pub fn commit_bytes(mut self, bytes: &[u8]) -> Result<(), Failure> {
        use std::io::Write;
        self.temp.write_all(bytes).map_err(|e| Failure::file(&self.path, format!("cannot be written: {e}")))?;
        self.commit()
    }

    fn commit(self) -> Result<(), Failure> {
        self.temp.persist(&self.path).map_err(|e| Failure::file(&self.path, format!("cannot be written: {}", e.error)))?;
        Ok(())
    }
}

struct TensorOut<'a>(&'a Tensor);

impl View for TensorOut<'_> {
    fn dtype(&self) -> Dtype {
        file_dtype(self.0.storage())
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.bytes())
    }
    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}
