"""Strings that tokenizers encode differently; see make_tokenizers.py.

They are grouped by what they test. Their order is part of the fixtures: append, never insert.
"""

LANGUAGES = [
    "The quick brown fox jumps over the lazy dog.",
    "Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich; STRAẞE.",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia… ¿verdad? ¡Sí!",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Pijamalı hasta yağız şoföre çabucak güvendi. İSTANBUL ılık",
    "Tiếng Việt có nhiều dấu: ặ ẫ ở ữ.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΣΟΦΟΣ σοφός",
    "نص حكيم له سر قاطع وذو شأن عظيم، أليس كذلك؟",
    "מַה טֹּבוּ אֹהָלֶיךָ יַעֲקֹב, דג סקרן שט בים",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "视野无限广,窗外有蓝天。天地玄黃,宇宙洪荒。",
    "いろはにほへと ちりぬるを。カタカナ、ひらがな、漢字ABC",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "தமிழ் மொழி, తెలుగు భాష, বাংলা ভাষা, ગુજરાતી",
    "ქართული ენა; Հայերեն լեզու; አማርኛ ቋንቋ; ភាសាខ្មែរ",
    "Mixed русский english 中文 العربية in one line",
    "ǅungla ǈubav ǋegoš ʰʷ ªº Ⅷ ⅻ ﬁne ﬂow",
]

CODE = [
    "def f(x: int) -> int:\n    \"\"\"Doc.\"\"\"\n    return x ** 2  # square\n",
    "class A:\n\tdef __init__(self, *args, **kwargs):\n\t\tself.x = args[0] if args else None\n",
    "fn main() {\n    let v: Vec<u8> = b\"a\\n\".to_vec();\n    println!(\"{:?}\", &v[..1]);\n}\n",
    "impl<'a, T: ?Sized + 'static> Foo<'a> for &'a mut T where T: Bar<Item = ()> {}",
    "#include <stdio.h>\r\nint main(void)\r\n{\r\n\treturn printf(\"%d\\n\", 0x1F) != 0;\r\n}\r\n",
    "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": [1, 2.5e-3, -0, null, true]}}",
    "SELECT * FROM t WHERE a<>b AND c>=10 ORDER BY 1 DESC;--end",
    "<html><body class=\"x\"><p>&nbsp;&amp;</p><!-- c --></body></html>",
    "if(a&&b||!c){x+=1;y-=--z;}else{w=a?b:c;}",
    "$ ls -la /usr/bin | grep -E '^d' > out.txt 2>&1",
    "https://example.org/a/b?c=d&e=%20f#g//h",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n\n```rust\nlet x = 1;\n```\n",
    "camelCaseHTTPServer snake_case_name SCREAMING_SNAKE kebab-case XMLHttpRequest2",
    "user@example.com, C:\\Windows\\System32, ~/.bashrc, a/b//c/\n/x",
    "E = mc^2; \\frac{a}{b} \\sum_{i=0}^{n} x_i ≤ ∞ ∀x∈ℝ",
]

SPACES = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", "\r\n", "\r\n\r\n", "\r",
    " a", "  a", "   a", "a ", "a  ", "a   b", " \n", "\n ", "a\n b", "a \n b", "a \n\n  b\n",
    " " * 17 + "x" + " " * 33, "a" + " " * 64 + "b", "\t \t a\t\tb", "    if x:\n        y\n",
    "trailing spaces   \nnext   ", "x\n\n\n\n\ny\r\n\r\n\r\nz",
    "a\u00a0b\u00a0\u00a0c", "a\u3000b\u3000 c", "a\u2028b\u2029c\u0085d", "a\u2003b\u202f\u205fc", "a\u000b\u000cb",
    "a\u001cb\u001fc", "a\u180eb",
]

DIGITS = [
    "0", "7", "42", "123", "1234", "12345", "1234567890", "3.14159265358979", "1,234,567.89", "-1 +2 =3",
    "a1b22c333d4444", "1 22 333 4444 55555", "2024-02-29T23:59:60Z", "0x1F 0b101 1e10 1_000",
    "\u0661\u0662\u0663\u0664 \u0967\u0968\u0969\u096a", "\uff11\uff12\uff13\uff14\uff15", "\u00b2\u00b3\u00bc\u00bd\u2460\u2461 x\u00b2",
    "v1.2.3-rc4", "100%", "$5.00 \u20ac10 \u00a37",
]

APOSTROPHES = [
    "I'm you're he's we've they'll I'd don't", "I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T", "it 's o 'RE 'Ll 'vE'd",
    "'s's'S'S 's\n't", "rock'n'roll 'tis ''quoted''", "it\u2019s don\u2019t", "x'\u017f x'\u017fa 'sa 'llama 'd1",
]

SYMBOLS = [
    "\U0001F600\U0001F603\U0001F44D", "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466 family",
    "\U0001F1E9\U0001F1EA\U0001F1EB\U0001F1F7 flags", "\U0001F44B\U0001F3FD wave \u2764\ufe0f heart", "a\U0001F600b 1\ufe0f\u20e3",
    "e\u0301 \u00e9 n\u0303 \u00f1 A\u030a \u212b \u1e9b\u0323", "a\u0300\u0316\u0345b \u0301x", "\uac00 \u1100\u1161 \ud55c \u1112\u1161\u11ab",
    "Z\u0351\u036b\u0343a\u0322\u034el\u0321g\u0334o\u0336", "zero\u200bwidth\u200cnon\u200djoin\ufeffbom\u2060wj", "\ufeffstart",
    "bidi \u202eabc\u202c \u2066x\u2069", "soft\u00adhyphen \u2010\u2011\u2012\u2013\u2014\u2015", "\u201cquotes\u201d \u2018single\u2019 \u00abguill\u00bb \u2026",
    "!!! ??? ... --- ___ *** ### @@@", "a,b;c:d.e!f?g", "((([[[{{{}}}]]])))", "<|>", "~`^|\\\"'", "\u2200\u2203\u2205 \u2190\u2192 \u2588\u2591 \u2500\u2502",
    "\ufffd", "a\ufffdb\ufffd\ufffd", "\u0000", "a\u0000b\u0000\u0000", "\u0001\u0002\u0007\u0008\u001b[31m\u007f", "\u0080\u009f\u00ff",
    "\U00010348\U0001D54F\U00020000\U0010FFFD", "\ue000\uf8ff private", "\u2581 lower \u2581block\u2581", "\u0120\u010a\u00c4 byte-level alphabet",
]

SPECIALS = [
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "a<|endoftext|>b", " <|im_start|> ",
    "<|im_start|><|im_start|>", "<|im_start", "<|IM_START|>", "x<|im_end|> y<|im_end|>\n\nz",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "<s>[INST] Hi [/INST] Hello</s>", "<s> a</s> b <unk>",
    "<bos><start_of_turn>user\nHi there<end_of_turn>\n", "</s>", "<0x0A><0x41>", "<pad><eos>",
    "<tool_call>\n{\"name\": \"f\"}\n</tool_call><|im_end|>", "</s> a</s>  b</s>\n c", "a <l> b<l>c <r> d<r>e <w> <w>f g<w>h <Ñ>",
]

LONG = [
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 100, "ab" * 40, "haha" * 20 + "!" * 20, "=" * 80, "the the the the the the", "\u4e2d" * 30,
    "Hello, world! This is a test of the tokenizer.\n\n1. First item\n2. Second item\n   - nested\n",
]

CORPUS = LANGUAGES + CODE + SPACES + DIGITS + APOSTROPHES + SYMBOLS + SPECIALS + LONG
