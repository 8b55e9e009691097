//! The modules of a crate as its source says: which file defines a name, and which names a file
//! uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree};

/// A path of names, such as `["crate", "registry", "Registry"]`.
type Names = Vec<String>;

/// How many re-exports a name may pass through. More of them are a circle of `use` lines.
const REEXPORTS: usize = 16;

/// The modules of one crate. Code for tests alone is left out.
#[derive(Debug, Default)]
pub(super) struct Modules {
    /// By path within the crate; the crate itself is the empty path.
    modules: BTreeMap<Names, Module>,
}

#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// What is defined here: types, functions, constants, macros.
    defined: BTreeSet<String>,
    /// `use` lines: the name that each gives, and the path that it stands for.
    imported: Vec<(String, Names)>,
    /// `use path::*` lines.
    globs: Vec<Names>,
    /// Paths in other code that begin with `crate`, `self` or `super`.
    named: Vec<Names>,
}

impl Modules {
    /// Reads the crate whose root file is `root` (`lib.rs` or `main.rs`).
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut modules = Self::default();
        let folder = root.parent().context("a source file is in a folder")?;
        modules.file(root, folder, Vec::new())?;
        Ok(modules)
    }

    /// For each file the files of the same crate that it uses something of.
    pub(super) fn uses(&self) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
        let mut uses: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for (at, module) in &self.modules {
            let imports = module.imported.iter().map(|(_, path)| path);
            let to = imports
                .chain(&module.globs)
                .chain(&module.named)
                .filter_map(|path| self.definer(at, path, 0))
                .filter(|file| **file != module.file)
                .cloned();
            uses.entry(module.file.clone()).or_default().extend(to);
        }
        uses
    }

    fn file(&mut self, file: &Path, children: &Path, at: Names) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        self.items(parsed.items, file, children, at)
    }

    fn items(&mut self, items: Vec<Item>, file: &Path, children: &Path, at: Names) -> Result<()> {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        for item in items {
            if for_tests(attributes(&item)) {
                continue;
            }
            match item {
                Item::Use(item) => imports(&item.tree, &mut Vec::new(), &mut module),
                Item::Mod(item) => {
                    let name = item.ident.to_string();
                    let mut inner = at.clone();
                    inner.push(name.clone());
                    let within = children.join(&name);
                    if let Some((_, items)) = item.content {
                        self.items(items, file, &within, inner)?;
                        continue;
                    }
                    let own = within.join("mod.rs");
                    let beside = children.join(format!("{name}.rs"));
                    self.file(if own.exists() { &own } else { &beside }, &within, inner)?;
                }
                other => {
                    module.defined.extend(defined(&other));
                    named(other.to_token_stream(), &mut module.named);
                }
            }
        }
        self.modules.insert(at, module);
        Ok(())
    }

    /// The file that defines what `path` names in module `at`; `None` if that is another crate's.
    fn definer(&self, at: &Names, path: &[String], depth: usize) -> Option<&PathBuf> {
        let (mut module, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (at.clone(), &path[1..]),
            "super" => (at[..at.len().checked_sub(1)?].to_vec(), &path[1..]),
            child => {
                let mut inner = at.clone();
                inner.push(child.to_owned());
                self.modules.get(&inner)?;
                (inner, &path[1..])
            }
        };
        while let Some(name) = rest.first() {
            if name == "super" {
                module.pop()?;
            } else {
                module.push(name.clone());
                if !self.modules.contains_key(&module) {
                    module.pop();
                    break;
                }
            }
            rest = &rest[1..];
        }
        let found = self.modules.get(&module)?;
        let Some(name) = rest.first() else {
            return Some(&found.file);
        };
        if found.defined.contains(name) || depth > REEXPORTS {
            return Some(&found.file);
        }
        for (given, path) in &found.imported {
            if given == name {
                let mut path = path.clone();
                path.extend_from_slice(&rest[1..]);
                return self.definer(&module, &path, depth + 1);
            }
        }
        let through_glob = found.globs.iter().find_map(|path| {
            let mut path = path.clone();
            path.push(name.clone());
            let file = self.definer(&module, &path, depth + 1)?;
            let defines = |module: &Module| module.file == *file && module.defined.contains(name);
            self.modules.values().any(defines).then_some(file)
        });
        through_glob.or(Some(&found.file))
    }
}

/// The names and globs of a `use` tree.
fn imports(tree: &UseTree, before: &mut Names, module: &mut Module) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            imports(&path.tree, before, module);
            before.pop();
        }
        UseTree::Name(name) => {
            let mut path = before.clone();
            if name.ident != "self" {
                path.push(name.ident.to_string());
            }
            let given = path.last().cloned().unwrap_or_default();
            module.imported.push((given, path));
        }
        UseTree::Rename(name) => {
            let mut path = before.clone();
            if name.ident != "self" {
                path.push(name.ident.to_string());
            }
            module.imported.push((name.rename.to_string(), path));
        }
        UseTree::Glob(_) => module.globs.push(before.clone()),
        UseTree::Group(group) => {
            for tree in &group.items {
                imports(tree, before, module);
            }
        }
    }
}

/// Collects the paths that begin with `crate`, `self` or `super`, within macros too.
fn named(tokens: TokenStream, paths: &mut Vec<Names>) {
    let mut path: Names = Vec::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                let word = ident.to_string();
                let goes_on = !path.is_empty() && colons == 2;
                if !goes_on {
                    end(&mut path, paths);
                }
                if goes_on || matches!(word.as_str(), "crate" | "self" | "super") {
                    path.push(word);
                }
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            other => {
                end(&mut path, paths);
                colons = 0;
                if let TokenTree::Group(group) = other {
                    named(group.stream(), paths);
                }
            }
        }
    }
    end(&mut path, paths);
}

fn end(path: &mut Names, paths: &mut Vec<Names>) {
    let whole = std::mem::take(path);
    if whole.len() > 1 {
        paths.push(whole);
    }
}

fn defined(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether it is compiled for tests only: `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && {
            let condition = attribute.meta.to_token_stream().to_string();
            let words: Vec<_> = condition.split(|sign: char| !sign.is_alphanumeric()).collect();
            words.contains(&"test") && !words.contains(&"any") && !words.contains(&"not")
        }
    })
}
