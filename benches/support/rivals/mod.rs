//! What else could hold the ranges while threads register and look up.

pub(crate) mod arc_swap_vec;
pub(crate) mod crossbeam_skiplist;
pub(crate) mod global_counter_vec;
pub(crate) mod locked_btreemap;
pub(crate) mod scc_tree_index;
pub(crate) mod textbook;

/// Expands a macro's arms for every contender that can be written: the subject and all rivals.
macro_rules! all_contenders {
    ($apply:ident) => {
        $apply! {
            crate::subject::Pcmap,
            crate::rivals::locked_btreemap::LockedBTreeMap<
                std::sync::RwLock<crate::rivals::locked_btreemap::Ranges>,
            >,
            crate::rivals::locked_btreemap::LockedBTreeMap<
                parking_lot::RwLock<crate::rivals::locked_btreemap::Ranges>,
            >,
            crate::rivals::arc_swap_vec::ArcSwapVec,
            crate::rivals::textbook::Textbook,
            crate::rivals::crossbeam_skiplist::CrossbeamSkiplist,
            crate::rivals::scc_tree_index::SccTreeIndex,
            crate::rivals::global_counter_vec::GlobalCounterVec,
        }
    };
}
pub(crate) use all_contenders;
