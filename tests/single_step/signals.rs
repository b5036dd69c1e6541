//! A signal at every instruction of every call.

use crate::call::{CALLS, Call, Operation, Scene};
use crate::is_long;
use crate::site::{Shape, Site};
use crate::trap::{Then, step};
use crate::watch::Watch;

/// A reader is held for so many boundaries: from before a version is displaced until after it would
/// be destroyed, if nobody held it; and calls that wait for readers end all the same.
const HELD_FOR: usize = 20_011;

/// Steps through one call and looks at every boundary. Gives boundaries and lookups.
fn look_at_every_boundary(call: Call, site: &Site, holds_for: usize) -> (usize, usize) {
    let mut scene = Scene::new(call, site);
    let watch = Watch::new(site.map(), &call, holds_for).viewing(scene.view_of_victim());
    let look = |boundary: &crate::trap::Boundary| {
        watch.look(boundary.number);
        Then::Step
    };
    let ((), steps) = step(&look, || scene.perform());
    let seen = watch.close();
    scene.undo();
    let name = call.name();
    let how = if holds_for == 0 { "" } else { ", a reader held" };
    println!(
        "{name}{how}: {} boundaries, {} in the allocator; changed at {}; {} lookups",
        steps.boundaries, steps.in_allocator, seen.changed_at, seen.lookups
    );
    assert!(seen.wrong.is_none(), "{name}{how}: {:?}", seen.wrong);
    assert!(steps.boundaries >= call.least, "{name}: suspiciously few boundaries");
    let [before, after] = call.shows_targets();
    assert_eq!(
        seen.changed_at != 0,
        before != after,
        "{name}: both states are to be seen, and the change between two boundaries"
    );
    assert!(before == after || seen.changed_at > 1, "{name}: the state before was never seen");
    (steps.boundaries, seen.lookups)
}

fn look_at_all(shapes: impl Fn(Shape) -> bool, holds_for: usize) {
    let tall = shapes(Shape::Tall).then(|| Site::new(Shape::Tall));
    let mut total = (0, 0);
    for &call in CALLS.iter().filter(|call| shapes(call.shape)) {
        // What is buried disappears from readers that are held, too.
        let is_buried = call.operation == Operation::UnregisterWithoutMemory;
        if holds_for != 0 && (is_buried || call.is_large && !is_long()) {
            continue;
        }
        let (boundaries, lookups) = match (&tall, call.shape) {
            (Some(tall), Shape::Tall) => look_at_every_boundary(call, tall, holds_for),
            _ => {
                let site = Site::new(call.shape);
                let counts = look_at_every_boundary(call, &site, holds_for);
                site.close();
                counts
            }
        };
        total = (total.0 + boundaries, total.1 + lookups);
    }
    if let Some(tall) = tall {
        tall.close();
    }
    println!("in all: {} boundaries, {} lookups", total.0, total.1);
}

#[test]
fn a_signal_at_every_instruction() {
    look_at_all(|shape| shape != Shape::Tall, 0);
}

#[test]
fn a_signal_at_every_instruction_on_a_tall_tree() {
    look_at_all(|shape| shape == Shape::Tall, 0);
}

#[test]
fn a_reader_held_across_instructions() {
    look_at_all(|shape| shape != Shape::Tall, HELD_FOR);
}

#[test]
fn a_reader_held_across_instructions_on_a_tall_tree() {
    look_at_all(|shape| shape == Shape::Tall, HELD_FOR);
}
