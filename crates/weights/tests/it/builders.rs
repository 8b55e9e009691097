//! Small files made byte by byte, so that a test can put any lie into them.

/// A GGUF file under construction. Counts are those of what was added unless a test overrides them.
#[derive(Clone)]
pub(crate) struct GgufBuilder {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) pair_count: Option<u64>,
    pub(crate) alignment: usize,
    pub(crate) pairs: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<Vec<u8>>,
    pub(crate) data: Vec<u8>,
}

impl Default for GgufBuilder {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            pair_count: None,
            alignment: 32,
            pairs: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
        }
    }
}

impl GgufBuilder {
    /// A valid file with a pair of several types and two tensors.
    pub(crate) fn small() -> Self {
        Self::default()
            .pair("general.architecture", 8, &string("llama"))
            .pair("llama.block_count", 4, &2_u32.to_le_bytes())
            .pair("tokenizer.ggml.tokens", 9, &strings(&["<s>", "a", "ä"]))
            .pair("tokenizer.ggml.scores", 9, &array(6, 2, &[0; 8]))
            .tensor("norm", &[4], 0, 0)
            .tensor("w", &[32, 2], 8, 32)
            .data(&[1; 32 + 68])
    }

    /// Adds a metadata pair with a value as it stands in the file.
    pub(crate) fn pair(mut self, key: &str, type_id: u32, value: &[u8]) -> Self {
        self.pairs
            .push([&string(key), type_id.to_le_bytes().as_slice(), value].concat());
        self
    }

    /// Adds a tensor's description; `dims` as in the file, innermost first.
    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let mut bytes = string(name);
        bytes.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| bytes.extend(d.to_le_bytes()));
        bytes.extend(type_id.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        self.tensors.push(bytes);
        self
    }

    /// Sets the data section.
    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    /// The file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        bytes.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        bytes.extend(self.pairs.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// A GGUF string.
pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A GGUF array with any count.
pub(crate) fn array(type_id: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [type_id.to_le_bytes().as_slice(), &count.to_le_bytes(), elements].concat()
}

/// A GGUF array of strings.
pub(crate) fn strings(texts: &[&str]) -> Vec<u8> {
    array(
        8,
        texts.len() as u64,
        &texts.iter().flat_map(|t| string(t)).collect::<Vec<u8>>(),
    )
}

/// A safetensors file of a header and data.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A valid safetensors file: a float matrix, a vector of each 16-bit type, and integers.
pub(crate) fn small_safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
        "h":{"dtype":"F16","shape":[2],"data_offsets":[24,28]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[28,32]},
        "ids":{"dtype":"I64","shape":[2],"data_offsets":[32,48]}}"#;
    let mut data: Vec<u8> = (0..6).flat_map(|i| (i as f32 + 0.5).to_le_bytes()).collect();
    data.extend([0x00, 0x3c, 0x00, 0xc0]); // 1, -2
    data.extend([0x80, 0x3f, 0x00, 0xc0]); // 1, -2
    data.extend([7_i64, -1].iter().flat_map(|i| i.to_le_bytes()));
    safetensors(header, &data)
}
