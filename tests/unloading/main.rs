#![expect(unsafe_code, reason = "dlopen, fork, and what the C library has allocated")]
//! A host loads a library with a map in it, uses that, and unloads it, a thousand times: each time the
//! library is gone afterwards, and in the end nothing of it is left in the process.
//!
//! A destructor of a thread-local keeps a library loaded until its thread ends. So the calls are made on
//! threads that live on.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod figures;

use figures::{Figures, mappings_of};
use std::env;
use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;

/// So many times in a row; then as many again, of which less may be left.
const LOADS: usize = 500;

/// What takes this long in a child hangs.
const PATIENCE: libc::c_uint = 20;

/// One test at a time: figures are the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

/// The library, which cargo has built with the examples; if it was not asked for those, here.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let test = env::current_exe().expect("this program");
        let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "map_plugin", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        build.arg("--target-dir").arg(profile.parent().expect("target"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success());
        let library = profile.join("examples/libmap_plugin.so");
        assert!(library.exists(), "{}", library.display());
        library
    })
}

/// A function of the library: with a snapshot, or (0) without.
type Use = extern "C" fn(c_int) -> c_int;

/// What a host does with the library.
#[derive(Clone, Copy)]
struct Work<'h> {
    function: &'static CStr,
    with_snapshot: bool,
    /// Makes the calls too, beside the thread that loads.
    host: Option<&'h HostThread>,
}

/// The map in the library's `static`.
const STATIC: &CStr = c"map_plugin_use";
/// A map that is dropped in the call.
const DROPPED: &CStr = c"map_plugin_use_another";

/// The library, loaded.
struct Loaded {
    handle: *mut c_void,
    call: Use,
}

fn loader_says() -> String {
    // SAFETY: asks only.
    let text = unsafe { libc::dlerror() };
    // SAFETY: the loader gives a string, which stays until the next call.
    let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
    text.map_or_else(|| "nothing".into(), |text| text.to_string_lossy().into_owned())
}

impl Loaded {
    fn new(path: &Path, function: &CStr) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zeros");
        // SAFETY: a string; what the library does when it is loaded is sound.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "dlopen: {}", loader_says());
        // SAFETY: a handle, and a string.
        let call = unsafe { libc::dlsym(handle, function.as_ptr()) };
        assert!(!call.is_null(), "dlsym: {}", loader_says());
        // SAFETY: the function has this type.
        let call = unsafe { std::mem::transmute::<*mut c_void, Use>(call) };
        Self { handle, call }
    }

    fn unload(self) {
        // SAFETY: nobody is in the library, or has anything of it.
        let outcome = unsafe { libc::dlclose(self.handle) };
        assert_eq!(outcome, 0, "dlclose: {}", loader_says());
    }
}

/// A thread of the host's, which lives as long as this: it makes the calls that it is given.
struct HostThread {
    calls: Option<Sender<(Use, c_int)>>,
    results: Receiver<c_int>,
    thread: Option<thread::JoinHandle<()>>,
}

impl HostThread {
    fn new() -> Self {
        let (calls, work) = channel::<(Use, c_int)>();
        let (done, results) = channel();
        let thread = thread::spawn(move || {
            for (call, argument) in work {
                done.send(call(argument)).expect("it is waited for");
            }
        });
        Self { calls: Some(calls), results, thread: Some(thread) }
    }

    fn call(&self, call: Use, argument: c_int) -> c_int {
        self.calls.as_ref().expect("not over").send((call, argument)).expect("the thread is there");
        self.results.recv().expect("the thread is there")
    }
}

impl Drop for HostThread {
    fn drop(&mut self) {
        drop(self.calls.take());
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(ended.is_some_and(|ended| ended.is_ok()) || thread::panicking());
    }
}

/// Forks; the child does `work`, and ends. Whether it went well.
fn in_child(work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child does what glibc allows after a fork, and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: no preconditions; its default action ends the child.
        unsafe { libc::alarm(PATIENCE) };
        let status = i32::from(!work());
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: a valid place, and our child.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "fork, or waitpid: {}", std::io::Error::last_os_error());
    status == 0
}

/// Loads, uses and unloads the library; in between, the process may fork.
fn load_once(work: Work<'_>, forks: bool) {
    let loaded = Loaded::new(library(), work.function);
    let (call, argument) = (loaded.call, c_int::from(work.with_snapshot));
    assert_eq!(call(argument), 0, "the library's own check");
    if let Some(host) = work.host {
        assert_eq!(host.call(call, argument), 0, "the library's own check");
    }
    if forks {
        assert!(in_child(|| call(argument) == 0), "the library in a child");
    }
    loaded.unload();
    assert_eq!(mappings_of(library()), 0, "the library is still mapped after dlclose");
    if forks {
        assert!(in_child(|| true), "a child of a process that has unloaded it");
        // Handlers and pages that the unloaded library left would be inherited.
        assert!(in_child(|| in_child(|| true)), "a child of that child");
    }
}

/// A thousand times, and what is left of them.
fn leaves_nothing(name: &str, work: Work<'_>) {
    // What the process, the loader and the allocator keep from the first times on.
    for round in 0..100 {
        load_once(work, round % 50 == 0);
    }
    let mut figures = vec![Figures::now()];
    for _ in 0..2 {
        for round in 0..LOADS {
            load_once(work, round % 50 == 0);
        }
        figures.push(Figures::now());
    }
    let [before, middle, last] = figures[..] else { panic!("three") };
    println!("{name}:\n  {before}\n  after {LOADS} loads {middle}\n  after {} {last}", 2 * LOADS);
    last.assert_no_more_than(&middle, LOADS);
}

/// A map in a `static`, empty when the library goes.
#[test]
fn a_library_that_registers_and_looks_up() {
    let _alone = alone();
    leaves_nothing("static map", Work { function: STATIC, with_snapshot: false, host: None });
}

#[test]
fn a_library_that_is_called_on_a_thread_that_lives_on() {
    let _alone = alone();
    let host = Some(&HostThread::new());
    leaves_nothing("two threads", Work { function: STATIC, with_snapshot: false, host });
}

#[test]
fn a_library_that_takes_snapshots_on_threads_that_live_on() {
    let _alone = alone();
    let host = Some(&HostThread::new());
    leaves_nothing("snapshots", Work { function: STATIC, with_snapshot: true, host });
}

/// Nothing but the map itself could hold on to memory of a map that was dropped.
#[test]
fn a_library_that_drops_its_map() {
    let _alone = alone();
    let host = Some(&HostThread::new());
    leaves_nothing("dropped map", Work { function: DROPPED, with_snapshot: false, host });
}

#[test]
fn a_library_that_drops_its_map_and_took_snapshots() {
    let _alone = alone();
    let host = Some(&HostThread::new());
    leaves_nothing("dropped, snapshots", Work { function: DROPPED, with_snapshot: true, host });
}

/// The check for what is left bites: a page that stays after each load is seen.
#[test]
fn a_page_for_each_load_would_be_seen() {
    let _alone = alone();
    let before = Figures::now();
    let size = 4096;
    let mut pages = Vec::with_capacity(LOADS);
    for _ in 0..LOADS {
        // SAFETY: a fresh mapping.
        let page = unsafe {
            let (access, kind) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            );
            libc::mmap(std::ptr::null_mut(), size, access, kind, -1, 0)
        };
        assert_ne!(page, libc::MAP_FAILED);
        pages.push(page);
    }
    let after = Figures::now();
    assert!(after.shows_growth_over(&before), "{before}; {after}");
    for page in pages {
        // SAFETY: mapped above, and used by nobody.
        unsafe { libc::munmap(page, size) };
    }
}
