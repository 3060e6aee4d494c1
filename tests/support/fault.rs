//! Shims between the gateway and its machine: disks that fail on command, hosts that are somewhere else, and a wall
//! clock that stands still.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;

/// The switch of one gateway's disk.
#[derive(Clone, Debug)]
pub struct Fault {
    folder: Arc<TempDir>,
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// `fsync` and `fdatasync`, with EIO.
    Sync,
    /// Writes, with EIO.
    Write,
    /// Writes, with ENOSPC.
    DiskFull,
    /// What the engine flushes to tables, with ENOSPC after a second; its journal is well.
    Flush,
    /// Nothing fails, but each sync takes so many milliseconds more.
    SlowSync(u32),
}

impl Fault {
    /// Compiles the shim (once a run) with the C compiler that building needs anyway.
    pub fn new() -> Self {
        Self { folder: Arc::new(tempfile::tempdir().expect("a temporary folder")) }
    }

    fn trigger(&self) -> PathBuf {
        self.folder.path().join("trigger")
    }

    pub fn on(&self, fails: Fails) {
        let content = match fails {
            Fails::Sync => format!("sync {}", libc::EIO),
            Fails::Write => format!("write {}", libc::EIO),
            Fails::DiskFull => format!("write {}", libc::ENOSPC),
            Fails::Flush => format!("tables {}", libc::ENOSPC),
            Fails::SlowSync(milliseconds) => format!("slow {milliseconds}"),
        };
        // Whole at once: the shim may look at any moment.
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, content).expect("write the trigger");
        std::fs::rename(draft, self.trigger()).expect("set the trigger");
    }

    pub fn off(&self) {
        std::fs::remove_file(self.trigger()).expect("remove the trigger");
    }

    /// What the gateway's environment needs; `data` is where its files are.
    pub fn environment(&self, data: &Path) -> [(&'static str, PathBuf); 3] {
        // The gateway's files are seen by their real paths.
        let parent = data.parent().and_then(|parent| parent.canonicalize().ok()).expect("the folder exists");
        let data = parent.join(data.file_name().expect("a name"));
        [
            ("LD_PRELOAD", shim().to_path_buf()),
            ("TIDEGATE_FAULT_DIR", data),
            ("TIDEGATE_FAULT_TRIGGER", self.trigger()),
        ]
    }
}

fn shim() -> &'static Path {
    static SHIM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &SHIM.get_or_init(|| compile("fault")).1
}

/// Variables for a gateway that is to reach `host`, on any port, at `port` of this machine.
pub fn host_at(host: &str, port: u16) -> [(&'static str, String); 3] {
    static SHIM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let shim = &SHIM.get_or_init(|| compile("names")).1;
    [
        ("LD_PRELOAD", shim.to_string_lossy().into_owned()),
        ("TIDEGATE_TEST_HOST", host.to_owned()),
        ("TIDEGATE_TEST_PORT", port.to_string()),
    ]
}

/// Variables for a gateway whose wall clock stands still at `seconds` (Unix time).
pub fn clock_at(seconds: u64) -> [(&'static str, String); 2] {
    static SHIM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let shim = &SHIM.get_or_init(|| compile("clock")).1;
    [("LD_PRELOAD", shim.to_string_lossy().into_owned()), ("TIDEGATE_TEST_TIME", seconds.to_string())]
}

/// The shim of that name, and the folder that it lives in.
fn compile(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shim = folder.path().join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/support/{name}.c"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&shim, &source])
        .arg("-ldl")
        .status();
    assert!(compiled.expect("a C compiler").success(), "the shim compiles");
    (folder, shim)
}
