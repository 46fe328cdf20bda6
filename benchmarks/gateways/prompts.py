"""What the callers ask: 2 KB of text each, English and Chinese in turn, none twice alike.

A prompt is made of sentences in an order of its own, so that nothing is answered or
counted from memory by accident.
"""

from __future__ import annotations

import json
import random
from typing import Any

SIZE = 2000  # bytes of text
MODEL = "gpt-4o-mini"
MAX_TOKENS = 200
KINDS = 64  # different prompts, half of them Chinese

ENGLISH = (
    "The night shift begins at ten, when the last of the day's reports has been filed.",
    "Our customers write to us from eleven time zones, and most of them write at lunch.",
    "Please read the ticket below and say in two sentences what went wrong.",
    "She had asked for a refund of $48.20 on the third of March, order no. 7-3391-B.",
    "Nothing in the log explains why the second retry was sent before the first failed.",
    "A bridge of that length expands by some forty centimetres between winter and summer.",
    "If the tenant gives notice in writing, the deposit is due within fourteen days.",
    "The committee met twice, disagreed politely, and wrote down what it could not settle.",
    "Sort the ingredients by weight, then tell me which of them can be left out.",
    "Rain is expected along the coast until Thursday, with gusts of up to 90 km/h.",
    "He replaced the bearing, checked the belt, and found that the noise was still there.",
    "Their harbour was built for ships a third as long as those that call there now.",
    "Give the answer as a table with three columns: name, unit, and typical range.",
    "The function returns None for an empty list, which its caller takes to mean success.",
    "Grandmother kept the letters in a biscuit tin, tied with string, in no order at all.",
    "Revenue grew by 12.4 % on the year before, mostly from renewals in the north.",
    "Translate the following paragraph, but leave product names and numbers untouched.",
    "Two thirds of the patients noticed an improvement by the end of the sixth week.",
    "An owl can turn its head far enough to look over its own back without moving.",
    "When the tide is out you can walk to the island, if you mind the hour.",
    "The contract says \u201creasonable effort\u201d four times and defines it nowhere.",
    "Write a short, friendly reply that neither promises a date nor sounds evasive.",
    "The old railway station is a library now; the clock above the door still runs late.",
    "Which of these three suppliers would you choose, and what would make you reconsider?",
)
CHINESE = (
    "夜班从晚上十点开始,那时白天的最后一份报告已经归档。",
    "我们的客户分布在十一个时区,大多数人习惯在午饭时间写信。",
    "请阅读下面的工单,用两句话说明问题出在哪里。",
    "她在三月三日申请退款48.20美元,订单号是7-3391-B。",
    "日志里没有任何内容能解释,为什么第一次请求还没有失败就发出了第二次重试。",
    "这么长的桥,冬夏之间的伸缩大约有四十厘米。",
    "如果租客以书面形式提出退租,押金应当在十四天之内退还。",
    "委员会开了两次会,客气地争论了一番,把没能解决的问题记了下来。",
    "请把配料按重量排序,然后告诉我哪些可以省略。",
    "预计沿海地区的降雨将持续到星期四,阵风最高可达每小时九十公里。",
    "他换了轴承,检查了皮带,却发现噪音依然存在。",
    "他们的港口当年是为长度只有如今三分之一的船只修建的。",
    "请用三列的表格回答:名称、单位和常见范围。",
    "这个函数在列表为空时返回None,而调用它的代码却把它当作成功。",
    "外婆把信放在一个饼干盒里,用细绳捆着,没有任何顺序。",
    "营业收入比上一年增长了12.4%,主要来自北方地区的续约。",
    "请翻译下面这一段,但是产品名称和数字要保持原样。",
    "到第六周结束时,三分之二的患者感到病情有所好转。",
    "猫头鹰不用转动身体,就能把头扭到足以看见自己背后的角度。",
    "退潮的时候可以步行走到岛上,不过要留意时间。",
    "合同里四次提到“合理努力”,却没有在任何地方给出定义。",
    "请写一封简短友好的回信,既不承诺日期,也不显得含糊其辞。",
    "老火车站如今成了图书馆,门上的大钟依旧走得慢。",
    "这三家供应商当中您会选择哪一家,什么情况会让您重新考虑?",
)


def text(number: int) -> str:
    """Return a prompt: the even ones in English, the odd ones in Chinese."""
    sentences, glue = (CHINESE, "") if number % 2 else (ENGLISH, " ")
    rng = random.Random(number)
    found = f"{number}. "
    while len(found.encode()) < SIZE:
        found += rng.choice(sentences) + glue
    return found


def ask(number: int, *, stream: bool = False, **more: Any) -> bytes:
    """Return the body of a call, as the official SDK writes it."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": text(number)},
    ]
    body = {"messages": messages, "model": MODEL, "max_tokens": MAX_TOKENS, **more}
    if stream:
        body["stream"] = True
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
