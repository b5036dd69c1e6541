//! What wasmtime itself reads in an artifact.

use crate::Artifact;
use wasmtime_environ::component::ComponentArtifacts;
use wasmtime_environ::object::{File, Object, ObjectSection};
use wasmtime_environ::{
    CompiledFunctionsTable, CompiledModuleInfo, FuncKey, FuncKeyKind, ModuleTypes, PrimaryMap,
    StaticModuleIndex, lookup_file_pos, lookup_trap_code, obj,
};

/// An artifact, read with wasmtime's own readers.
#[derive(Debug)]
pub struct Oracle<'a> {
    /// Its machine code.
    pub text: &'a [u8],
    traps: &'a [u8],
    addresses: &'a [u8],
    names: &'a [u8],
    table: CompiledFunctionsTable,
    modules: PrimaryMap<StaticModuleIndex, Known>,
}

/// Of what is known about a module, what is asked for here.
#[derive(Debug)]
struct Known {
    imported: u32,
    /// Indices, and where the names lie in the section of names.
    names: Vec<(u32, std::ops::Range<usize>)>,
}

/// A function as wasmtime knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFunction<'a> {
    /// The namespace of its key: a kind and a module.
    pub namespace: u32,
    /// Its index, with imported functions counted where the key's does not.
    pub index: u32,
    /// Whether the index can be told from a symbol.
    pub has_index: bool,
    /// What the module calls it, if a module defines it.
    pub name: Option<&'a str>,
    /// The routine that it calls, if it is a trampoline to one.
    pub routine: Option<&'static str>,
    /// Text offsets, half-open.
    pub start: u32,
    /// See `start`.
    pub end: u32,
}

impl<'a> Oracle<'a> {
    /// Reads an artifact as wasmtime does.
    ///
    /// # Panics
    ///
    /// If it is not wasmtime's.
    pub fn new(artifact: &'a Artifact) -> Self {
        let file = File::parse(&*artifact.elf).expect("an ELF file");
        let section = |name: &str| {
            let section = file.section_by_name(name);
            section.map_or(&[][..], |section| section.data().expect("inside the file"))
        };
        let info = section(obj::ELF_WASMTIME_INFO);
        let mut modules = PrimaryMap::new();
        let table = if artifact.is_component {
            let read: ComponentArtifacts = postcard::from_bytes(info).expect("of a component");
            read.static_modules.values().for_each(|module| _ = modules.push(Known::of(module)));
            read.table
        } else {
            type Info = (CompiledModuleInfo, CompiledFunctionsTable, ModuleTypes);
            let (module, table, _): Info = postcard::from_bytes(info).expect("of a module");
            modules.push(Known::of(&module));
            table
        };
        Self {
            text: section(".text"),
            traps: section(obj::ELF_WASMTIME_TRAPS),
            addresses: section(obj::ELF_WASMTIME_ADDRMAP),
            names: section(obj::ELF_NAME_DATA),
            table,
            modules,
        }
    }

    /// The byte that stands for the trap at exactly this text offset.
    pub fn trap(&self, offset: u32) -> Option<u8> {
        lookup_trap_code(self.traps, offset as usize).map(|trap| trap.as_u8())
    }

    /// Where the text at this offset was compiled from. (Nothing: no entry, or one without a place.)
    pub fn source(&self, offset: u32) -> Option<u32> {
        lookup_file_pos(self.addresses, offset as usize).and_then(|place| place.file_offset())
    }

    /// The function that contains this text offset.
    pub fn function(&self, offset: u32) -> Option<KnownFunction<'_>> {
        let key = self.table.func_by_text_offset(offset)?;
        let place = self.table.func_loc(key).expect("a function that was found has a place");
        let (namespace, mut index) = key.into_raw_parts();
        let (mut name, mut routine) = (None, None);
        if let FuncKey::DefinedWasmFunction(module, _) | FuncKey::ArrayToWasmTrampoline(module, _) =
            key
        {
            let module = &self.modules[module];
            index += module.imported;
            if key.kind() == FuncKeyKind::DefinedWasmFunction {
                name = module.name(index, self.names);
            }
        }
        if let FuncKey::WasmToBuiltinTrampoline(builtin)
        | FuncKey::PatchableToBuiltinTrampoline(builtin) = key
        {
            routine = Some(builtin.name());
        }
        let has_index = routine.is_none() && key.kind() != FuncKeyKind::UnsafeIntrinsic;
        let (start, end) = (place.start, place.start + place.length);
        // Its search takes the first byte behind a function for one of it.
        (start..end).contains(&offset).then_some(KnownFunction {
            namespace,
            index,
            has_index,
            name,
            routine,
            start,
            end,
        })
    }
}

impl Known {
    fn of(info: &CompiledModuleInfo) -> Self {
        let names = info.func_names.iter().map(|name| {
            let start = name.offset as usize;
            (name.idx.as_u32(), start..start + name.len as usize)
        });
        let imported = u32::try_from(info.module.num_imported_funcs).expect("a small module");
        Self { imported, names: names.collect() }
    }

    fn name<'a>(&self, index: u32, names: &'a [u8]) -> Option<&'a str> {
        let (_, place) = self.names.iter().find(|(known, _)| *known == index)?;
        Some(str::from_utf8(&names[place.clone()]).expect("a name"))
    }
}
