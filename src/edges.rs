// The memory orderings of the index, each handed out under the name of the edge it belongs to.
//
// The index never writes `Ordering::…` itself: it asks for an edge, so that the ledger in
// `docs/ORDERINGS.md` can list every edge, and so that the models can weaken one edge at a time
// and expect to be caught. The macros are given by whoever compiles this file: `sync.rs` makes
// each name a constant function; the model package makes each name weakenable.

edges! {
    // Every compare-and-swap that fails: whoever goes on loads again.
    lost = Relaxed;
    statistic = Relaxed; // numbers that carry nothing with them

    // Sections: enter, leave, and the epoch that decides when nobody can be inside.
    announce = Relaxed; // a reader counts itself in; [reader_announces] orders it
    leave = Release; // pairs with [scan]
    scan = Acquire; // pairs with [leave]
    choose_side = Relaxed; // a reader picks the parity it counts on; any recent epoch will do
    observe_epoch = Acquire; // pairs with [advance]
    advance = Release; // pairs with [observe_epoch]

    // Eras: which is current, and what their objects are used for.
    begin_era = Release; // pairs with [read_era]
    read_era = Acquire; // pairs with [begin_era]
    change_state = Release; // pairs with [see_state]
    see_state = Acquire; // pairs with [change_state]
    claim_generation = Relaxed; // a number compared for equality, carrying nothing
    install = Release; // pairs with [installed]
    installed = Acquire; // pairs with [install]

    // The pointer that handlers read.
    publish = Release; // pairs with [read_published]
    read_published = Acquire; // pairs with [publish]

    // Entries: removed, left out of a version, let go of.
    remove = Relaxed; // an exchange; [writer_displaces] orders it for readers
    tombstone = Relaxed; // read by lookups, ordered for them by whoever tells them
    release = AcqRel; // pairs with [omit]
    omit = AcqRel; // pairs with [release]
    end_block = AcqRel; // pairs with itself
    note_removal = Release; // pairs with [see_removals]
    see_removals = Acquire; // pairs with [note_removal]

    // The view of the last snapshot.
    show_view = Release; // pairs with [see_view]
    see_view = Acquire; // pairs with [show_view]

    // Garbage on lists.
    put = Release; // pairs with [take]
    take = Acquire; // pairs with [put]
    below = Relaxed; // the links, made visible by [put]
    put_block = Release; // pairs with [take_block]
    take_block = Acquire; // pairs with [put_block]

    // Counts of holders.
    count_up = Relaxed; // the one who counts up holds a count already
    count_down = Release; // pairs with [count_last]
}

// The counted registrations of `src/registry/claim.rs`.
registry_edges! {
    owners = Relaxed; // a count whose changes are in one order; [count_down] orders the rest
}

// A fence right behind an atomic read-modify-write, which some machines make one of itself.
fences_behind_exchange! {
    reader_announces = SeqCst; // meets [writer_displaces] and [scanner_looks]
    writer_displaces = SeqCst; // meets [reader_announces], [scanner_looks] and [viewer_looks]
    parker_looks = SeqCst; // meets [drainer_looks]
    drainer_looks = SeqCst; // meets [parker_looks]
    viewer_looks = SeqCst; // meets [writer_displaces]
    follower_looks = SeqCst; // meets itself
}

fences! {
    scanner_looks = SeqCst; // meets [reader_announces] and [writer_displaces]
    count_last = Acquire; // pairs with [count_down]
}
