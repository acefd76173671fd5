//! Counters as plain numbers, each with its name.

/// A struct of counters, and a way to list them: a name is written once.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident,)+ }) => {
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default)]
        $(#[$about])*
        pub struct $name {
            $($(#[$field_about])* pub $field: u64,)+
        }

        impl $name {
            /// Each with its name, in the order of the names.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }
        }
    };
}

pub(crate) use counters;
