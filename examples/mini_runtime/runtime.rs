//! The story: compile, instantiate, call, ask, debug, let go.

use crate::compiler::{SIGNATURE, compile};
use crate::debugger;
use crate::store::{Instance, Store};
use pcmap::registry::{
    Component, Engine, EngineCode, EngineConfig, Module, ModuleRegistry, process_code_map,
};
use std::error::Error;

/// A module of its own. All functions here take three numbers and give one; `@` marks where in its
/// source an instruction comes from.
const ARITHMETIC: &str = "
function %square(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
@0010    v3 = imul v0, v0
@0011    return v3
}
function %divide(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
@0020    v3 = sdiv v0, v1
@0021    return v3
}
";

/// Two modules that are compiled together, as those of a component are. The third number is the
/// address of a function to call.
const GEOMETRY: &str = "
function %sum_of_squares(i64, i64, i64) -> i64 system_v {
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64):
@0030    v3 = call_indirect sig0, v2(v0, v0, v0)
@0034    v4 = call_indirect sig0, v2(v1, v1, v1)
@0038    v5 = iadd v3, v4
@0039    return v5
}
";
const COMPARISON: &str = "
function %larger(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
@0040    v3 = smax v0, v1
@0041    return v3
}
";

const SQUARE: u32 = 0;
const DIVIDE: u32 = 1;
const SUM_OF_SQUARES: u32 = 0;
const LARGER: u32 = 0;

/// A store with an instance of everything.
struct Tenant {
    store: Store,
    arithmetic: Instance,
    geometry: Instance,
    comparison: Instance,
}

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    debugger::install()?;

    // Stores that can be debugged run copies of their own: a breakpoint in one is none in another.
    let engine = Engine::new(EngineConfig::new().private_copies(true))?;

    // Loading puts the text into memory, makes that executable, and registers it in the process's
    // code map: from here on a handler that is asked for an address in it finds its tables.
    let code = EngineCode::load(&engine, compile(&[ARITHMETIC])?)?;
    let arithmetic = Module::new(&code, 0)?;
    let shared = EngineCode::load(&engine, compile(&[GEOMETRY, COMPARISON])?)?;
    let component = Component::new(&shared, 0..2)?;
    println!("compiled {code:?} and {shared:?}");

    let mut alice = Tenant::new("alice", &engine, &arithmetic, &component)?;
    let bob = Tenant::new("bob", &engine, &arithmetic, &component)?;

    for tenant in [&alice, &bob] {
        tenant.compute()?;
        tenant.tell_what_is_where(&arithmetic)?;
    }
    traps(&alice, &arithmetic)?;
    debug(&mut alice, &bob)?;
    let_go(alice, bob, (engine, code, arithmetic, shared, component))
}

impl Tenant {
    fn new(
        name: &'static str,
        engine: &Engine,
        arithmetic: &Module,
        component: &Component,
    ) -> Result<Self, Box<dyn Error>> {
        let mut store = Store::new(name, engine);
        // The component's code comes first, and its modules as they are instantiated.
        store.registry.register_component(component)?;
        let [geometry, comparison] = component.modules() else { return Err("two modules".into()) };
        let comparison = store.instantiate(comparison)?;
        let arithmetic = store.instantiate(arithmetic)?;
        let geometry = store.instantiate(geometry)?;
        Ok(Self { store, arithmetic, geometry, comparison })
    }

    /// Calls every function, and one that calls another one.
    fn compute(&self) -> Result<(), Box<dyn Error>> {
        let Self { store, arithmetic, geometry, comparison } = self;
        let square = store.function(*arithmetic, SQUARE).ok_or("no function")?.address() as i64;
        let results = [
            store.call(*arithmetic, SQUARE, [7, 0, 0]),
            store.call(*arithmetic, DIVIDE, [84, 2, 0]),
            store.call(*geometry, SUM_OF_SQUARES, [3, 4, square]),
            store.call(*comparison, LARGER, [-5, 3, 0]),
        ];
        println!(
            "{}: 7² = {:?}, 84/2 = {:?}, 3²+4² = {:?}, larger = {:?}",
            store.name, results[0], results[1], results[2], results[3]
        );
        check(results == [Some(49), Some(42), Some(25), Some(3)], "the results are right")
    }

    /// Prints what the registry says of one address in each of a module's functions.
    fn tell_what_is_where(&self, module: &Module) -> Result<(), Box<dyn Error>> {
        for function in module.functions() {
            let start = self.store.function(self.arithmetic, function.key.index());
            let pc = start.ok_or("no function")?.address() + function.range.len() as usize / 2;
            print_frame(&self.store.registry, pc);
            let frame = self.store.registry.lookup_frame_info(pc).ok_or("no frame")?;
            check(frame.function() == function, "an address in a function is found to be in it")?;
        }
        Ok(())
    }
}

/// What a handler of faults would ask: which instructions may trap, and why. Here they are asked in
/// the store's copy, whose answers come from the original's tables.
fn traps(tenant: &Tenant, module: &Module) -> Result<(), Box<dyn Error>> {
    let registry = &tenant.store.registry;
    let base = registry.store_code_base(module.engine_code()).ok_or("not loaded")?;
    let mut found = 0;
    for (offset, code) in module.engine_code().tables().trap_table().view() {
        let pc = base.checked_add(offset.get() as usize).ok_or("no address")?;
        let trap = process_code_map().lookup(pc, |hit| hit.value().trap_at(hit.offset()));
        println!("{pc:?} may trap: {code}");
        check(trap == Some(Some(code)), "the map knows every trap")?;
        found += 1;
    }
    check(found > 0, "a division may trap")
}

/// A breakpoint in the one store; the other one runs on.
fn debug(alice: &mut Tenant, bob: &Tenant) -> Result<(), Box<dyn Error>> {
    let module = alice.store.registry.module_by_id(alice.arithmetic.id).ok_or("no module")?;
    let site = module.function(SQUARE).ok_or("no function")?.range.start();
    let id = alice.arithmetic.id;
    check(alice.store.registry.set_breakpoint(id, site)?, "it is a new breakpoint")?;

    let before = debugger::stops();
    bob.compute()?;
    check(debugger::stops() == before, "the other store does not stop")?;
    alice.compute()?;
    check(debugger::stops() == before + 3, "the function was called three times")?;

    // The last stop was in `square`, called by `sum_of_squares`, called by the trampoline.
    println!("the stack at the last stop:");
    let stack = debugger::last_stack();
    stack.iter().for_each(|&pc| print_frame(&alice.store.registry, pc));
    let names = stack.iter().map(|&pc| {
        let frame = alice.store.registry.lookup_frame_info(pc)?;
        frame.function().name.map(str::to_owned)
    });
    let expected = [Some("square"), Some("sum_of_squares"), None];
    check(names.eq(expected.map(|name| name.map(str::to_owned))), "the stack is as it must be")?;

    check(alice.store.registry.clear_breakpoint(id, site)?, "it was set")?;
    alice.compute()?;
    check(debugger::stops() == before + 3, "a cleared breakpoint stops nobody")
}

fn print_frame(registry: &ModuleRegistry, pc: usize) {
    match registry.lookup_frame_info(pc) {
        Some(frame) => println!(
            "  {pc:#x}  {}+{:#x}  of {:?}, {}",
            frame.function().name.unwrap_or("?"),
            frame.function_offset(),
            frame.module_id().compiled_id(),
            frame.source_offset().map_or("no source".to_owned(), |source| source.to_string()),
        ),
        None if registry.store_code_by_pc(pc).is_some() => {
            println!("  {pc:#x}  in the store's code, in no function of a module: a trampoline");
        }
        None => println!("  {pc:#x}  not in this store"),
    }
}

/// Each store leaves the map at once, and with the last handle the originals go.
fn let_go<H>(alice: Tenant, bob: Tenant, handles: H) -> Result<(), Box<dyn Error>> {
    let map = process_code_map();
    check(alice.store.registry.wasm_to_array_trampoline(SIGNATURE).is_some(), "it is loaded")?;
    check(map.stats().entries == 6, "two originals, and two copies for each store")?;
    let publications = map.stats().publications;
    drop(alice);
    check(map.stats().entries == 4, "one store is gone")?;
    check(map.stats().publications == publications, "and nothing was published for that")?;
    drop((bob, handles));
    // Memory is given back when no handler can be looking any more: here, at once.
    map.synchronize();
    check(map.stats().entries == 0 && map.stats().retired == 0, "nothing is left")?;
    println!("all is gone: {}", map.stats());
    Ok(())
}

fn check(holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("it does not hold that {what}").into()) }
}
