"""Weights: what each class of characters comes to, by family of tokenizers.

Thousandths of a token, by the names of `classes`. Fitted so that the sum of the
differences, each as a share of the true count, is least, on some 5,000 pieces of 200 to
6,000 characters: documentation, code in five languages, JSON, tables, logs, noise, and
translations of programs and manuals into 40 languages. A class that the texts scarcely
hold has what its rarer characters come to. And whose tokenizer a model has. Data alone.
"""

from __future__ import annotations

import re

from ratekeeper.providers import classes

MODERN = "modern"  # the mean of those that are neither cl100k nor Claude's

_FAMILIES = (
    "modern",
    "o200k",
    "cl100k",
    "deepseek",
    "qwen",
    "glm",
    "minimax",
    "tekken",
    "claude-3",
    "claude",
)
# Words, letters, digits and marks are of ASCII.
_FITTED = """
words                          |  678   669   759   708   663   659   772   673   796   776
letters from the third on      |  142   148   122   144   133   151   103   149   126   300
a capital after a small letter |  101   171   202   158   198     1   300     0   958   556
capitals                       |   44     0     0    81     0     0    56   176    48   487
a small letter after capitals  | 2305  2447  2802  2172  2445  2797  2024  2066  3000  1109
digits                         |  421   334   334   334   869   495   334   901   334   334
runs of digits                 | 1144   929   920   836   799   955   882   780   708   714
runs of line ends              |  848   766   684   700  1327   823   723   883   996  1062
runs of blanks from two on     |  862   809   928   685  1062   862   897   679   844   712
marks of punctuation           |   37    35    33    34    28    26    25   118    32   365
runs of marks                  |  712   694   669   821   731   661   734   583  1111   807
signs of Latin-1               |  695   639   662   771   648   664   544   851   604   717
Latin-1 letters                | 1539  1218  2418  2010  1251  1821  1592  1269  2194  2338
further Latin letters          | 1905  1567  2536  2371  1421  1801  2763  1606  2279  2359
rare letters of two bytes      |  747   500  2101   636   752  1103  1813   500   729   733
Greek                          |  481   395  1031   521   385   450   795   419   752   759
Cyrillic                       |  300   280   452   324   259   285   346   324   410   414
Hebrew                         |  653   434  1140   557   545  1142   943   509   802   802
Arabic                         |  380   349   824   438   326   461   350   337   770   769
Devanagari                     |  640   381  1182   679   759  1060   690   451   846   849
Thai                           |  617   422   958   404   546   932  1054   566   986   986
further Indic                  |  846   446  1641   710   860  1593   939   549  1048  1038
Vietnamese                     |  300   300   330   300   300   300  1297   300   789   679
further letters of three bytes |  777   404  2067   865   620  1078  1454   538   801   801
general punctuation            | 1556  1211   669  1449  1579   847  1269  1073  1185  1677
symbols                        | 1000  1000  1000  1000  1000  1000  1000  1000  1000  1000
CJK punctuation                |  500   500   500   500   500   500   500   500   692   659
kana                           |  559   681  1011   647   431   672   349   622   772   766
Han                            |  722   797  1041   644   618   668   608  1043  1173  1174
Hangul                         |  710   691  1073   805   554   940   622   689  1331  1331
full width                     |  687   709   873   928   622   915   600   978  1350  1351
emoji and the like             | 2340  1988  2773  2120  2654  1900  1923  3000  3000  3000
"""


def _read(table: str) -> dict[str, tuple[int, ...]]:
    """Return the weights by family, in the order of the counts."""
    lines = (line.partition("|") for line in table.strip().splitlines())
    rows = {name.strip(): row.split() for name, _, row in lines}
    names = (*classes.NAMES, *classes.MORE_NAMES)[1:]
    return {
        family: (1, *(int(rows[name][at]) for name in names))
        for at, family in enumerate(_FAMILIES)
    }


WEIGHTS = _read(_FITTED)

# Whose tokenizer a model has, by how its name begins, or what follows its maker's name
# and a dot (`us.anthropic.claude-…`); the first that fits.
_OLDER_CLAUDE = (
    r"claude-(?:[123]|instant|(?:opus|sonnet|haiku)-4"
    r"(?:[-.][0-6](?![0-9])|(?![-.][0-9]{1,2}(?![0-9]))))"
)
_NAMES = (
    (_OLDER_CLAUDE, "claude-3"),  # up to 4.6; from 4.7 on the tokenizer is finer
    ("claude", "claude"),
    (r"gpt-4o|gpt-4\.", "o200k"),
    ("gpt-3|gpt-4|text-embedding", "cl100k"),
    ("gpt|chatgpt|codex|o[134]", "o200k"),
    ("deepseek", "deepseek"),
    ("qw", "qwen"),
    ("glm", "glm"),
    ("minimax", "minimax"),
    (
        "mistral|ministral|mixtral|magistral|codestral|devstral|pixtral|voxtral",
        "tekken",
    ),
)
MODELS = tuple(
    (re.compile(rf"(?:.*\.)?(?:{names})"), family) for names, family in _NAMES
)
