//! GGUF files made in memory, with metadata only.

/// Writes a GGUF file without tensors, key by key.
///
/// ```
/// let bytes = multigraft_testing::GgufWriter::new()
///     .string("general.architecture", "llama")
///     .strings("tokenizer.ggml.tokens", ["a", "b"])
///     .bytes();
/// assert_eq!(&bytes[..4], b"GGUF");
/// ```
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    pairs: u64,
    body: Vec<u8>,
}

// Type tags of the format.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

impl GgufWriter {
    /// A file with no metadata.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a string.
    #[must_use]
    pub fn string(self, key: &str, value: &str) -> Self {
        let mut file = self.key(key, STRING);
        file.text(value);
        file
    }

    /// Adds an unsigned integer.
    #[must_use]
    pub fn u32(self, key: &str, value: u32) -> Self {
        let mut file = self.key(key, U32);
        file.body.extend(value.to_le_bytes());
        file
    }

    /// Adds a truth value.
    #[must_use]
    pub fn bool(self, key: &str, value: bool) -> Self {
        let mut file = self.key(key, BOOL);
        file.body.push(value.into());
        file
    }

    /// Adds an array of strings.
    #[must_use]
    pub fn strings<S: AsRef<str>>(self, key: &str, values: impl IntoIterator<Item = S>) -> Self {
        let values: Vec<S> = values.into_iter().collect();
        let mut file = self.array(key, STRING, values.len());
        for value in values {
            file.text(value.as_ref());
        }
        file
    }

    /// Adds an array of signed integers.
    #[must_use]
    pub fn i32s(self, key: &str, values: impl IntoIterator<Item = i32>) -> Self {
        let values: Vec<i32> = values.into_iter().collect();
        let mut file = self.array(key, I32, values.len());
        file.body.extend(values.into_iter().flat_map(i32::to_le_bytes));
        file
    }

    /// Adds an array of floats.
    #[must_use]
    pub fn f32s(self, key: &str, values: impl IntoIterator<Item = f32>) -> Self {
        let values: Vec<f32> = values.into_iter().collect();
        let mut file = self.array(key, F32, values.len());
        file.body.extend(values.into_iter().flat_map(f32::to_le_bytes));
        file
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(self.pairs.to_le_bytes());
        bytes.extend(&self.body);
        bytes
    }

    fn key(mut self, key: &str, tag: u32) -> Self {
        self.pairs += 1;
        self.text(key);
        self.body.extend(tag.to_le_bytes());
        self
    }

    fn array(self, key: &str, tag: u32, length: usize) -> Self {
        let mut file = self.key(key, ARRAY);
        file.body.extend(tag.to_le_bytes());
        file.body.extend((length as u64).to_le_bytes());
        file
    }

    fn text(&mut self, text: &str) {
        self.body.extend((text.len() as u64).to_le_bytes());
        self.body.extend(text.as_bytes());
    }
}
