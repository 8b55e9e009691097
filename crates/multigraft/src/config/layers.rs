//! The macro that makes a table of settings from one list, and how the layers of settings (flags
//! and environment, file, defaults) are put on top of each other.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use multigraft_sources::{AllowedSource, Reference};

use super::values::{AdapterDtype, BaseAlias, KvDtype, NamedSource, SelfTestMode, Switch};
use crate::{device::Device, memory::Bytes};

/// Makes two structs from a list of settings: the options as they are given, for clap and serde,
/// and the settings that follow from them.
///
/// An entry is `name: Type = default,` or `name: Type,`. With a default, the option has the type
/// `Option<Type>` and the setting has the type `Type`. Without one, both have the type `Type`,
/// which says itself what nothing given means: an `Option`, a `Vec` or a `bool`. An entry's doc
/// comment is the help text; its attributes go to the options.
macro_rules! settings {
    (
        $(#[$($options_attribute:tt)*])* struct $options:ident;
        $(#[$($settings_attribute:tt)*])* struct $settings:ident;
        $($list:tt)*
    ) => {
        settings! {
            @entries
            { $(#[$($options_attribute)*])* struct $options }
            { $(#[$($settings_attribute)*])* struct $settings }
            {} {} {} {}
            $($list)*
        }
    };
    (
        @entries $options:tt $settings:tt { $($given:tt)* } { $($resolved:tt)* } { $($merged:tt)* } { $($names:tt)* }
        $(#[$($attribute:tt)*])* $name:ident : $type:ty = $default:expr, $($rest:tt)*
    ) => {
        settings! {
            @entries $options $settings
            { $($given)* $(#[$($attribute)*])* pub $name: Option<$type>, }
            { $($resolved)* pub $name: $type, }
            { $($merged)* ($name, |given: Option<$type>| given.unwrap_or_else(|| $default)) }
            { $($names)* $name }
            $($rest)*
        }
    };
    (
        @entries $options:tt $settings:tt { $($given:tt)* } { $($resolved:tt)* } { $($merged:tt)* } { $($names:tt)* }
        $(#[$($attribute:tt)*])* $name:ident : $type:ty, $($rest:tt)*
    ) => {
        settings! {
            @entries $options $settings
            { $($given)* $(#[$($attribute)*])* pub $name: $type, }
            { $($resolved)* pub $name: $type, }
            { $($merged)* ($name, |given: $type| given) }
            { $($names)* $name }
            $($rest)*
        }
    };
    (
        @entries
        { $(#[$($options_attribute:tt)*])* struct $options:ident }
        { $(#[$($settings_attribute:tt)*])* struct $settings:ident }
        { $($given:tt)* } { $($resolved:tt)* } { $(($merged:ident, $or_default:expr))* } { $($name:ident)* }
    ) => {
        #[derive(clap::Args, Clone, Debug, Default, PartialEq, serde::Deserialize)]
        $(#[$($options_attribute)*])*
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub(crate) struct $options { $($given)* }

        $(#[$($settings_attribute)*])*
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $settings { $($resolved)* }

        impl $options {
            /// Makes relative paths relative to `folder`.
            pub(super) fn resolve_paths(&mut self, folder: &std::path::Path) {
                $($crate::config::layers::Layer::resolve_paths(&mut self.$name, folder);)*
            }

            /// These options over those of `file` over the defaults.
            pub(super) fn over(self, file: Self) -> $settings {
                $settings {
                    $($merged: ($or_default)($crate::config::layers::Layer::over(self.$merged, file.$merged)),)*
                }
            }
        }
    };
}

pub(super) use settings;

/// What can be given for a setting in a layer, which may be nothing.
pub(super) trait Layer: Sized {
    /// This value; where nothing was given, that of the layer below.
    fn over(self, below: Self) -> Self;

    /// Makes relative paths relative to `folder`.
    fn resolve_paths(&mut self, _folder: &Path) {}
}

/// A value that may be absent in a layer.
pub(super) trait Value {
    /// Makes relative paths relative to `folder`.
    fn resolve_paths(&mut self, _folder: &Path) {}
}

impl<T: Value> Layer for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        if let Some(value) = self {
            value.resolve_paths(folder);
        }
    }
}

/// A flag without a value can only be switched on.
impl Layer for bool {
    fn over(self, below: Self) -> Self {
        self || below
    }
}

/// Both layers' adapters. Where both have a name, this layer's adapter.
impl Layer for Vec<NamedSource> {
    fn over(self, below: Self) -> Self {
        let below = below.into_iter();
        let mut adapters: Self = below
            .filter(|adapter| self.iter().all(|given| given.name != adapter.name))
            .collect();
        adapters.extend(self);
        adapters
    }

    fn resolve_paths(&mut self, folder: &Path) {
        for adapter in self {
            match &mut adapter.at {
                Reference::Folder(path) => path.resolve_paths(folder),
                // `org/repo` is a folder if there is one.
                Reference::Hub { repo, revision: None } if folder.join(&*repo).exists() => {
                    adapter.at = Reference::Folder(folder.join(&*repo));
                }
                _ => {}
            }
        }
    }
}

/// Both layers' aliases, this layer's last: of several with one name the last one counts.
impl Layer for Vec<BaseAlias> {
    fn over(self, mut below: Self) -> Self {
        below.extend(self);
        below
    }

    fn resolve_paths(&mut self, folder: &Path) {
        for alias in self {
            alias.path.resolve_paths(folder);
        }
    }
}

/// One layer's list: lists are not joined, so that a flag can narrow what the file allows.
impl Layer for Vec<AllowedSource> {
    fn over(self, below: Self) -> Self {
        if self.is_empty() { below } else { self }
    }

    fn resolve_paths(&mut self, folder: &Path) {
        for source in self {
            if let AllowedSource::Folder(path) = source {
                path.resolve_paths(folder);
            }
        }
    }
}

impl Value for PathBuf {
    fn resolve_paths(&mut self, folder: &Path) {
        *self = folder.join(&*self);
    }
}

macro_rules! values_without_paths {
    ($($type:ty),*) => { $(impl Value for $type {})* };
}

values_without_paths!(
    AdapterDtype,
    Bytes,
    Device,
    IpAddr,
    KvDtype,
    SelfTestMode,
    String,
    Switch,
    u16,
    u64,
    usize
);
