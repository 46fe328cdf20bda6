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
words                          |  751   723   794   774   751   776   792   751   861   832
letters from the third on      |  112   126   107   115    99   108    94   118    91   263
a capital after a small letter |  232   239   263   267   375   233   303     0  1108   699
capitals                       |   49     0     0    86     0     0    54   183    56   498
a small letter after capitals  | 2258  2452  2776  2126  2374  2706  2065  2251  3000  1071
digits                         |  450   334   334   334   898   537   334   941   334   334
runs of digits                 | 1020   873   898   791   674   810   857   630   672   680
runs of line ends              |  704   632   597   508  1210   673   608   709   923   929
runs of blanks from two on     |  912   820   944   764  1088   938   932   792   891   751
marks of punctuation           |   38    31    31    37    26    31    26   122    34   362
runs of marks                  |  749   748   695   864   768   682   757   625  1147   881
signs of Latin-1               |  714   635   694   783   643   692   602   911   619   866
Latin-1 letters                | 1837  1625  2651  2238  1548  2154  1866  1591  2359  2554
further Latin letters          | 1856  1543  2482  2366  1363  1830  2637  1629  2333  2415
rare letters of two bytes      |  732   500  2093   603   706  1093  1795   500   719   725
Greek                          |  485   406  1038   527   391   454   798   419   748   758
Cyrillic                       |  317   296   472   337   271   299   358   335   403   410
Hebrew                         |  689   483  1174   608   576  1173   950   531   817   812
Arabic                         |  395   373   834   449   341   476   373   353   772   770
Devanagari                     |  654   394  1197   693   764  1061   710   462   860   864
Thai                           |  627   442   971   412   543   945  1064   575   994   997
further Indic                  |  890   466  1839   829   881  1764   967   574  1073  1071
further letters of three bytes |  764   400  1964   855   608  1070  1458   523   810   809
general punctuation            | 2040  1556   682  1927  2071   898  2032  1204  1734  2246
symbols                        | 1000  1000  1000  1000  1000  1000  1000  1000  1000  1000
CJK punctuation                |  923  1164   951   808  1199  1033   622   664  1468  1361
kana                           |  560   682  1032   648   420   677   367   623   757   757
Han                            |  748   825  1072   672   623   705   641  1082  1168  1164
Hangul                         |  749   741  1138   848   591   980   660   715  1354  1347
full width                     |  841   880  1251   948   926   906   722   740  1476  1481
emoji and the like             | 2378  2008  2808  2158  2697  1900  1950  3000  3000  3000
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
