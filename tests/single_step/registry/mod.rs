//! Every instruction of the calls that load code into engines and stores: what the index's calls go
//! through, once more, with real code in real mappings.
//!
//! What is in the code map is mapped, executable and told rightly: so at each boundary the handler
//! also asks the tables of what it finds, and calls it. Loading code allocates and protects pages and
//! unregistering it unmaps them: such a system call is one instruction here. The calls are in
//! [`call`], how each is set up in [`scene`], the code in [`code`], and what lookups must say in [`sight`].
//!
//! A `ModuleRegistry` itself is not asked in the handler: its methods are for the thread that has
//! the store, and the call that is stepped through borrows it. It is compared with the code map after
//! each call.

mod call;
mod code;
mod scene;
mod sight;

use crate::forks::{Children, fork_at_every};
use crate::held::{LONG_RUNS, LONG_STOPS, hold_while, stop_at};
use crate::is_long;
use crate::trap::{Boundary, Then, step};
use call::{CALLS, Call, Operation};
use code::{call, image};
use pcmap::registry::{Engine, EngineCode, Module, ModuleRegistry, process_code_map};
use scene::Scene;
use sight::{MOST, Sight, Watch};
use std::thread;

/// A reader is held for so many boundaries; calls that take out garbage end all the same.
const HELD_FOR: usize = 20_011;

/// Steps through one call and looks at every boundary. Gives boundaries and looks.
fn look_at_every_boundary(call: Call, is_process: bool, holds_for: usize) -> (usize, usize) {
    let mut scene = Scene::new(call, is_process, false);
    assert_eq!(std::ptr::eq(scene.site.map(), process_code_map()), is_process);
    let watch = Watch::new(scene.sight(), holds_for);
    let look = |boundary: &Boundary| {
        watch.look(boundary.number);
        Then::Step
    };
    let ((), steps) = step(&look, || scene.perform());
    let how = if holds_for == 0 { "" } else { ", a reader held" };
    let name = format!("{}{how}", call.name());
    let seen = watch.close(&name);
    scene.compare_store();
    scene.undo();
    println!(
        "{name}: {} boundaries, {} in the allocator; changed at {}; {} looks",
        steps.boundaries, steps.in_allocator, seen.changed_at, seen.looks
    );
    assert!(steps.boundaries >= call.least, "{name}: suspiciously few boundaries");
    assert_eq!(seen.looks, steps.boundaries);
    (steps.boundaries, seen.looks)
}

/// In the process's code map, where handlers look.
#[test]
fn a_signal_at_every_instruction_of_the_registry() {
    let (mut boundaries, mut looks) = (0, 0);
    for &call in CALLS {
        let counts = look_at_every_boundary(call, call.has_neighbours(), 0);
        (boundaries, looks) = (boundaries + counts.0, looks + counts.1);
    }
    println!("in all: {boundaries} boundaries, {looks} looks at code and around it");
}

/// What a reader found stays mapped, executable and as it was.
#[test]
fn a_reader_held_across_instructions_of_the_registry() {
    let mut boundaries = 0;
    for &call in CALLS {
        // What is buried disappears from readers that are held, too.
        let is_buried = call.operation == Operation::DropStoreWithoutMemory;
        if !is_buried && (is_long() || call.could_unmap()) {
            boundaries += look_at_every_boundary(call, false, HELD_FOR).0;
        }
    }
    println!("in all: {boundaries} boundaries");
}

/// Where the code of an image is called.
fn run(start: usize) -> u32 {
    call(start + 16)
}

/// Loads code, looks it up, runs it in a store of its own, and lets go of all; whether all of it
/// went well.
fn load_and_run(engine: &Engine) -> bool {
    let map = engine.code_map();
    let Ok(code) = EngineCode::load(engine, image(200)) else { return false };
    let start = code.text_range().start.address();
    let owners = || map.lookup(start + 20, |hit| (hit.offset(), hit.value().owners()));
    let (found, ran) = (owners() == Some((20, 1)), run(start) == 200);
    let mut store = ModuleRegistry::new(engine);
    let Ok(module) = Module::new(&code, 0) else { return false };
    let registered = store.register_module(&module).is_ok();
    let Some(base) = store.store_code_base(&code).map(|base| base.address()) else { return false };
    let copied = base != start && run(base) == 200;
    let frame = store.lookup_frame_info(base).map(|frame| frame.module().id());
    let told = frame == Some(module.id()) && map.lookup(base, |hit| hit.offset()) == Some(0);
    drop((code, module));
    let kept = owners().is_some();
    drop(store);
    let gone = owners().is_none() && map.lookup(base, |hit| hit.offset()).is_none();
    found && ran && registered && copied && told && kept && gone
}

/// What others do while the call stands still; whether they see the state after it.
fn go_on(sight: &Sight, engine: &Engine, mirror: Option<&EngineCode>, write: bool) -> bool {
    let map = engine.code_map();
    let reader = map.enter();
    let seen = sight.look(&reader, &[0; MOST]).expect("a state before or after");
    for number in 0..3 {
        sight.look_around(&reader, number).expect("as it was");
    }
    drop(reader);
    if write {
        assert!(load_and_run(engine));
        // The same mapping: joins those who have it, or registers it anew beside one who left.
        if let Some(mirror) = mirror {
            let code = mirror.share_with(engine).expect("memory");
            let start = code.text_range().start.address();
            assert_eq!(map.lookup(start, |hit| hit.value().owners() != 0), Some(true));
            run(start);
        }
    }
    let _ = map.reclaim();
    sight.is_after(&seen)
}

/// Holds the call, as [`hold_while`] says; `write`: the other thread writes.
fn hold(call: Call, write: bool, when: impl Fn(usize) -> bool, once: bool) -> (usize, usize) {
    let mut scene = Scene::new(call, false, write);
    let (sight, rival, mirror) = (scene.sight(), scene.site.rival.clone(), scene.mirror.clone());
    let go_on = || go_on(&sight, &rival, mirror.as_ref(), write);
    let counts = hold_while(&call.name(), when, once, go_on, || scene.perform());
    let reader = sight.map.enter();
    let last = sight.last();
    assert_eq!(sight.look(&reader, &last), Ok(last), "{}: after the call", call.name());
    drop((reader, mirror));
    scene.compare_store();
    scene.undo();
    counts
}

/// Held again and again during one call, while another thread looks and takes out garbage.
#[test]
fn a_call_of_the_registry_held_again_and_again() {
    let mut total = 0;
    for &call in CALLS {
        let every = call.spacing();
        let (boundaries, holds) = hold(call, false, |number| number.is_multiple_of(every), false);
        println!("{}: held {holds} times, every {every} of {boundaries} boundaries", call.name());
        total += holds;
    }
    println!("held {total} times in all");
    assert!(total > 500, "suspiciously few holds");
}

/// Held once in each of many runs, while another thread loads, runs and drops code, and registers
/// the very mapping that the call is about.
#[test]
fn a_call_of_the_registry_held_while_others_write() {
    let runs = if is_long() { LONG_RUNS } else { 3 };
    let mut total = 0;
    for &call in CALLS {
        let once = |at| hold(call, true, |number| number == at, true);
        // How many boundaries there are.
        let (boundaries, _) = once(usize::MAX);
        let every = (boundaries / runs).max(1);
        total += (1..=boundaries).step_by(every).map(|at| once(at).1).sum::<usize>();
        println!("{}: held once at every {every} of {boundaries} boundaries", call.name());
    }
    println!("held {total} times in all");
    assert!(total > 60, "suspiciously few holds");
}

/// Threads stop for ever in the midst of a call: all that others do goes on, with the very mapping
/// that the call is about, too.
#[test]
fn threads_that_stop_for_ever_in_the_registry() {
    let stops = if is_long() { LONG_STOPS } else { 3 };
    let mut total = 0;
    for &call in CALLS {
        let (boundaries, _) = hold(call, true, |_| false, false);
        let mut stopped = 0;
        for at in (1..boundaries).step_by((boundaries / stops).max(1)) {
            let scene = Scene::new(call, false, true);
            let (sight, rival) = (scene.sight(), scene.site.rival.clone());
            let mirror = scene.mirror.clone();
            stopped += usize::from(stop_at(at, move || scene, Scene::perform));
            // This thread, and one that comes later.
            let go_on = move || go_on(&sight, &rival, mirror.as_ref(), true);
            let before = go_on();
            let other = thread::spawn(go_on).join().expect("no panic");
            assert!(other || !before, "back again");
        }
        println!("{}: {stopped} threads stopped for ever", call.name());
        total += stopped;
    }
    println!("{total} threads are stopped");
    assert!(total > 60, "suspiciously few");
}

/// A child looks the code up, loads code of its own and lets go of it. `is_after`: the call is over;
/// else it may have garbage in hand.
fn live_on(sight: &Sight, engine: &Engine, is_after: bool) {
    let map = engine.code_map();
    let from = if is_after { sight.last() } else { [0; MOST] };
    let reader = map.enter();
    ensure!(sight.look(&reader, &from).is_ok());
    ensure!(sight.look_around(&reader, 0).is_ok());
    ensure!(sight.look_around(&reader, 1).is_ok());
    drop(reader);
    for _ in 0..3 {
        ensure!(load_and_run(engine));
    }
    map.synchronize();
    let reader = map.enter();
    ensure!(sight.look(&reader, &from).is_ok());
    ensure!(sight.look_around(&reader, 0).is_ok());
    drop(reader);
    ensure!(!is_after || map.reclaim().is_empty());
}

#[test]
fn a_fork_at_any_instruction_of_the_registry() {
    let mut total = Children::default();
    for &call in CALLS {
        let (mut scene, every, name) =
            (Scene::new(call, false, false), call.spacing(), call.name());
        let (sight, rival) = (scene.sight(), scene.site.rival.clone());
        let live_on = |is_after| live_on(&sight, &rival, is_after);
        let counts = fork_at_every(&name, every, || live_on(false), || scene.perform());
        let Some((boundaries, children)) = counts else {
            // A child, in which the call that was interrupted has ended.
            live_on(true);
            scene.compare_store();
            scene.undo();
            crate::children::leave(0);
        };
        scene.undo();
        println!("{name}: {} forks, at every {every} of {boundaries} boundaries", children.all());
        total = total.and(children);
    }
    let Children { in_handler, completed } = total;
    println!("{in_handler} children worked in the handler, {completed} completed the call");
    assert!(total.all() > 500, "suspiciously few forks");
}
