//! A folder with a program and an input file, and the command in it.

#![allow(dead_code)] // each test file uses a part

use std::path::PathBuf;
use std::process::{Command, Output};

/// A safetensors file of (name, dtype, shape, bytes).
pub fn tensors(list: &[(&str, &str, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut header = String::from("{");
    let mut data = Vec::new();
    for (i, (name, dtype, shape, bytes)) in list.iter().enumerate() {
        let from = data.len();
        data.extend(bytes);
        let comma = if i == 0 { "" } else { "," };
        header.push_str(&format!(r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{from},{}]}}"#, data.len()));
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

pub struct Lab {
    folder: tempfile::TempDir,
    what: String,
}

impl Lab {
    /// `prog.attn` and `in.safetensors` in a folder of their own.
    pub fn new(program: &str, input: &[u8]) -> Lab {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prog.attn"), program).unwrap();
        std::fs::write(folder.path().join("in.safetensors"), input).unwrap();
        Lab { folder, what: String::new() }
    }

    /// What the case is, for failures.
    pub fn named(mut self, what: &str) -> Lab {
        self.what = what.to_string();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn output(&self) -> Vec<u8> {
        std::fs::read(self.path("out.safetensors")).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs the program on the interpreter; see `exec`.
    pub fn run(&self, args: &[&str], code: i32, wants: &[&str]) {
        let all = [&["run", "prog.attn", "--target", "interp", "--in", "in.safetensors", "--out", "out.safetensors"], args].concat();
        self.exec(&all, code, wants);
    }

    /// Runs the command in the folder. Demands the exit status, every text of `wants` on stderr, and after a failure that the folder
    /// holds the same files as before.
    pub fn exec(&self, args: &[&str], code: i32, wants: &[&str]) -> Output {
        let before = self.names();
        let out = Command::new(env!("CARGO_BIN_EXE_attnc")).args(args).current_dir(self.folder.path()).env("NO_COLOR", "1").output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        let say = format!("{} {args:?}\n{stderr}", self.what);
        assert_eq!(out.status.code(), Some(code), "{say}");
        for want in wants {
            assert!(stderr.contains(want), "`{want}` is missing in: {say}");
        }
        if code != 0 {
            assert!(!stderr.is_empty(), "{say}");
            assert_eq!(self.names(), before, "{say}");
        }
        out
    }
}
