// The memory orderings of the index, each handed out under the name of the edge it belongs to.
//
// The index never writes `Ordering::…` itself: it asks for an edge, so that the ledger in
// `docs/ORDERINGS.md` can list every edge, and so that the models can weaken one edge at a time
// and expect to be caught. The macros are given by whoever compiles this file: `sync.rs` makes
// each name a constant function; the model package makes each name weakenable.

edges! {
    // Every compare-and-swap that fails: whoever goes on loads again.
    lost = Relaxed;

    // Reader sections: enter, leave, and the epoch that decides when nobody can be inside.
    announce = Relaxed; // a reader counts itself in; [reader_announces] orders it
    read_published = Acquire; // pairs with [publish]
    leave = Release; // pairs with [scan]
    scan = Acquire; // pairs with [leave]
    choose_side = Relaxed; // a reader picks the parity it counts on; any recent epoch will do
    observe_epoch = Acquire; // pairs with [advance]
    advance = Release; // pairs with [observe_epoch]
    switch_domain = Release; // pairs with [read_domain]
    read_domain = Acquire; // pairs with [switch_domain]
    claim_domain = Relaxed; // a number compared for equality, carrying nothing

    // The chain of versions and the pointer that handlers read.
    link = Release; // pairs with [follow]
    follow = Acquire; // pairs with [link]
    publish = Release; // pairs with [read_published]
    tag = Relaxed; // the tag is a number; the fences around it order it
    tombstone = Relaxed; // read by lookups, ordered for them by whoever tells them
    bury = Release; // pairs with [buried]
    buried = Acquire; // pairs with [bury]
    tidy = Release; // pairs with [tidied]
    tidied = Acquire; // pairs with [tidy]
    statistic = Relaxed; // numbers that carry nothing with them
    fill_cell = Release; // pairs with [cell_filled]
    cell_filled = Acquire; // pairs with [fill_cell]

    // First use.
    install = Release; // pairs with [installed]
    installed = Acquire; // pairs with [install]

    // Retired versions, from the head of the chain to their destruction.
    claim = Acquire; // pairs with [unclaim]
    unclaim = Release; // pairs with [claim]
    by_claim = Relaxed; // only who has the claim writes or follows it
    leftovers = Relaxed; // as above; [put] orders them for whoever destroys
    took = Release; // pairs with [taken]
    taken = Acquire; // pairs with [took]
    put = Release; // pairs with [take]
    take = Acquire; // pairs with [put]
    below = Relaxed; // a stack's links, made visible by [put]
    in_flight = Relaxed; // counted in before [took] makes it visible
    destroyed = Release; // pairs with [settled]
    settled = Acquire; // pairs with [destroyed]

    put_spare = Release; // pairs with [take_spare]
    take_spare = Acquire; // pairs with [put_spare]

    // Counted blocks (versions, nodes and entries).
    count_up = Relaxed; // the one who counts up holds a count already
    count_down = Release; // pairs with [count_last]
}

// The counted registrations of `src/registry/claim.rs`.
registry_edges! {
    owners = Relaxed; // a count whose changes are in one order; [count_down] orders the rest
}

// A fence right behind an atomic read-modify-write, which some machines make one of itself.
fences_behind_exchange! {
    reader_announces = SeqCst; // meets [writer_displaces], [writer_unlinks] and [scanner_looks]
    writer_displaces = SeqCst; // meets [reader_announces] and [scanner_looks]
}

fences! {
    writer_unlinks = SeqCst; // meets [reader_announces] and [scanner_looks]
    scanner_looks = SeqCst; // meets [reader_announces], [writer_displaces] and [writer_unlinks]
    count_last = Acquire; // pairs with [count_down]
}
