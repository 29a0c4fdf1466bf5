"""Texts that tokenizers get wrong: scripts, emoji, marks, control characters, source code, and random Unicode."""
import random

TEXTS = [
    "", " ", "  ", "a", "\n", "\n\n  \n", "\t tabs\tand  spaces   ", "trailing space ", " leading",
    "Hello, world! It's we'll they'VE I'M you'D don'T 'tis rock'n'roll 's's",
    "The year 1984 and 2024-01-31, 3.14159, 1234567890 1,000,000 0x1F ½ ¾ ² Ⅷ ٣٤٥ ४५६",
    "Grüße aus Köln, die Straße ist naß. ẞ ſoll ſein 'ſ 'S KELVIN K",
    "Привет, мир! Это проверка токенизатора. Ёлка съела ещё",
    "Γειά σου Κόσμε, τι κάνεις; Ἀθῆναι ᾧ",
    "你好，世界！这是一个分词测试。我在2023年买了３本书。",
    "こんにちは世界。カタカナとひらがな、ﾊﾝｶｸ、長音ーー",
    "안녕하세요 세계! 한국어 테스트입니다. 각 각",
    "नमस्ते दुनिया, यह एक परीक्षण है। क्षत्रिय ज्ञान",
    "مرحبا بالعالم! هذا اختبار. ١٢٣ العَرَبِيَّة",
    "שלום עולם, זה מבחן. בְּרֵאשִׁית",
    "สวัสดีชาวโลก นี่คือการทดสอบ กำลัง",
    "ሰላም ልዑል ። ᏣᎳᎩ ᚠᚢᚦ 𐍈𐌰 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛",
    "வணக்கம் உலகம் తెలుగు ಕನ್ನಡ മലയാളം",
    "Xin chào thế giới, Việt Nam. Zażółć gęślą jaźń. ÅÅ Ǻ",
    "😀👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇩🇪 ❤️ ☃ ①②③ ™ © ‼️",
    "e\u0301 a\u0308\u0304 o\u0302\u0323 \u0344 \u0958 \u212b \u1100\u1161\u11a8 q\u0307\u0323 \u0f73\u0f71",
    "\u0000\u0001\u0007\u001b[0m\u007f\u0085\u00a0\u00ad\u180e\u200b\u200d\u2028\u2029\u202e\u2060\ufeff\ufffd\uffff",
    "\r\n\r\nline\r\n  indented\r\n\tcode\r",
    "def f(x):\n    return {'a': x**2, \"b\": [i for i in range(10)]}  # comment\n\n\nclass A(B):\n\tpass\n",
    "#include <vector>\nint main() { std::vector<int> v{1,2,3}; for(auto&x:v)x<<=1; return v[0]!=0?1:0; }\n",
    "SELECT * FROM t WHERE a='b' AND c<>3;-- x\n<html><body class=\"x\">&nbsp;</body></html>",
    "https://example.org/path?q=1&r=%20#frag user@example.org C:\\dir\\file_name.txt __init__ camelCaseWord HTTPServer",
    "." * 70 + " " * 70 + "=" * 33 + "\n" * 40 + "a" * 300 + "ab" * 150,
    "\u1c8a\u1c89 \ua7cb\ua7da \u0897 \U00010ec2 \U000105c0 \U0001e5d0 \U00016d40 \U0001ccf0 \U0001fae9 \U0002ebf0 \U00031350",
    "<|endoftext|>text<|endoftext|><|im_start|>user\nhi<|im_end|>\n <mask> <mask>word  <tool>x<tool>\u3000y",
    "word wordy sword word. _word_ word1 éword wordé  word\u0301", "NORMe\u0301 NORM\u00e9 norm\u00e9", "▁under ▁▁score▁",
]

INTERVALS = [(0x20, 0x7E), (0, 0x1F), (0x80, 0x24F), (0x250, 0x36F), (0x370, 0x58F), (0x590, 0x8FF), (0x900, 0xDFF),
             (0xE00, 0x13FF), (0x1400, 0x1FFF), (0x2000, 0x2BFF), (0x2C00, 0x2FFF), (0x3000, 0x33FF), (0x4E00, 0x9FFF),
             (0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x2FFFF), (0x300, 0x36F)]
PARTS = ["'s", "'LL", " ", "  ", "\n", "\r\n", "\u00a0", "the", " and", "1234", "<|endoftext|>", "<mask>", "word", "<tool>", "e\u0301"]


def random_texts(count, seed):
    generator = random.Random(seed)
    texts = []
    for _ in range(count):
        intervals = generator.sample(INTERVALS, generator.randint(1, 4))
        parts = []
        for _ in range(generator.randint(1, 30)):
            if generator.random() < 0.3:
                parts.append(generator.choice(PARTS))
            else:
                c = generator.randint(*generator.choice(intervals))
                parts.append(chr(c) if not 0xD800 <= c <= 0xDFFF else " ")
        texts.append("".join(parts))
    return texts


def many_texts(count, seed):
    """Short ones: of one or two scripts, words, white space, special tokens and single code points in any order."""
    generator = random.Random(seed)
    pool = [part for text in TEXTS for part in text.split(" ") if 0 < len(part) < 12]
    pool += PARTS * 4 + ["<|im_end|>", "<s>", "</s>", "<unk>", "[MASK]", "[SEP]", "\u3000", "   ", "\t", "\u2581"] * 4
    for low, high in INTERVALS:
        pool += [chr(c) for c in (generator.randint(low, high) for _ in range(60)) if not 0xD800 <= c <= 0xDFFF]
    texts = []
    for _ in range(count):
        parts = generator.choices(pool, k=generator.randint(0, 4))
        c = generator.randint(0, 0x10FFFF if generator.random() < 0.1 else 0x2FFFF)
        parts.append("" if 0xD800 <= c <= 0xDFFF else chr(c))
        generator.shuffle(parts)
        texts.append(generator.choice(("", " ", "  ")).join(parts))
    return texts


def every_code_point():
    """All of the first two planes, where all boundaries of classes are but those of ideographs, and a part of the others."""
    scalars = [c for c in range(0x20000) if not 0xD800 <= c <= 0xDFFF] + list(range(0x20000, 0x110000, 61))
    return ["".join(f"a{chr(c)}1{chr(c)} " for c in scalars[i:i + 2048]) for i in range(0, len(scalars), 2048)]
