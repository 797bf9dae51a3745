"""Says a plan in Chinese, in many ways; the English wordings are in `captions`.

A side is one character, 左 or 右, and stands nowhere else but in 左右, which means both: `captions.mirrored` counts on that.
"""

from __future__ import annotations

import numpy as np

from anisora.synthetic.duets import is_duet
from anisora.synthetic.handling import food_of
from anisora.synthetic.parts import PALETTES, Pick, picker
from anisora.synthetic.person import Person
from anisora.synthetic.plan import ClipPlan

ACTION_PHRASES: dict[str, tuple[str, ...]] = {
    "walk": ("向{side}走", "朝{side}边走去", "慢慢往{side}走", "向{side}散步"),
    "run": ("向{side}跑", "朝{side}边奔跑", "飞快地往{side}跑", "向{side}冲去"),
    "skip": ("蹦蹦跳跳地向{side}走", "朝{side}蹦跳前进", "往{side}边一蹦一跳"),
    "jump": ("上下跳跃", "原地跳起来", "高高跳起", "跳个不停"),
    "wave": ("挥手", "挥手打招呼", "向我们招手", "举手挥动"),
    "turn": ("转身", "转来转去", "转到另一边"),
    "spin": ("原地旋转", "转圈", "转着圈"),
    "sit": ("坐下", "坐到地上", "在地上坐下"),
    "fall": ("摔倒", "滑倒在地", "跌倒在地上", "失去平衡摔倒"),
    "talk": ("说话", "边说边比划", "讲话", "开口说话"),
    "nod": ("点头", "点头同意", "连连点头"),
    "shake_head": ("摇头", "摇头说不", "不停摇头"),
    "dance": ("跳舞", "欢快地跳舞", "随着节拍跳舞"),
    "cheer": ("欢呼", "举起双手欢呼", "高兴得欢呼跳跃"),
    "clap": ("鼓掌", "拍手", "拍着双手"),
    "bow": ("鞠躬", "弯腰鞠躬", "礼貌地鞠躬"),
    "bounce_ball": ("拍球", "玩皮球", "拍一个红球"),
    "look_around": ("四处张望", "左右张望", "东张西望"),
    "laugh": ("大笑", "哈哈大笑", "笑出声来", "笑个不停"),
    "point": ("指向{side}边", "伸手指着{side}边", "用手指向{side}边"),
    "cry": ("哭泣", "揉着眼睛哭", "伤心地哭", "放声大哭"),
    "sleep": ("坐着睡觉", "打瞌睡", "坐在地上睡着了", "低头打盹"),
    "crawl": ("向{side}爬", "手脚并用往{side}爬", "朝{side}边爬行"),
    "yawn": ("打哈欠", "伸懒腰打哈欠", "困得打哈欠"),
    "eat": ("吃{food}", "大口吃{food}", "咬一口{food}"),
    "drink": ("喝水", "举杯喝水", "仰头喝一杯水"),
    "push": ("向{side}推箱子", "用力往{side}推箱子", "推着沉重的箱子向{side}走"),
    "throw": ("向{side}扔球", "用力扔出一个球", "朝{side}边投球"),
    "pick_up": ("捡球", "弯腰捡起一个球", "从地上捡起球"),
    "fight": ("和{other}打架", "与{other}互相出拳", "跟{other}打斗"),
    "hug": ("拥抱{other}", "和{other}紧紧拥抱", "抱住{other}"),
    "high_five": ("和{other}击掌", "跳起来与{other}击掌", "跟{other}拍手击掌"),
    "blink": ("眨眼", "慢慢眨眼睛", "闭眼又睁开"),
    "surprise": ("突然吃惊", "吓了一跳", "惊讶得睁大眼睛"),
    "brighten": ("由悲转喜", "转忧为笑", "难过后露出笑容"),
    "sadden": ("由喜转悲", "笑容消失变得难过", "高兴变成难过"),
    "anger": ("突然生气", "皱起眉头生气", "慢慢发怒"),
}

_FOOD = {"rice ball": "饭团", "apple": "苹果", "sandwich": "三明治"}

_STYLE = {
    "flat": ("平涂风格", "扁平卡通", "简单平涂"),
    "line": ("线稿风格", "墨线勾边", "淡彩线描"),
    "cel": ("赛璐璐风格", "日式动画上色", "赛璐璐动画"),
    "painted": ("手绘质感", "柔和绘本风", "厚涂风格"),
}

_PAPER = {
    "rough": ("", "，纸纹", "，粗糙纸面"),
    "canvas": ("", "，画布纹理", "，帆布质感"),
    "hatching": ("", "，蜡笔质感", "，铅笔排线"),
}

_CAMERA = {
    "static": ("固定镜头", "镜头不动", "静止机位"),
    "pan": ("镜头横移", "横摇镜头", "镜头缓缓平移"),
    "follow": ("跟拍镜头", "镜头跟随", "镜头跟着移动"),
    "zoom_in": ("镜头推近", "缓慢推进", "画面放大"),
    "zoom_out": ("镜头拉远", "缓慢拉远", "画面缩小"),
    "shake": ("镜头晃动", "手持抖动", "画面抖动"),
    "tilt": ("镜头上下摇动", "镜头垂直移动", "纵向摇镜"),
}

_PLACE = {
    "meadow": ("在草地上", "在绿色的田野里", "在开满花的草坡上"),
    "town": ("在小镇街上", "在街道上", "在彩色房子前"),
    "forest": ("在森林里", "在树林中", "在林间"),
    "room": ("在房间里", "在室内", "在家里"),
    "classroom": ("在教室里", "在黑板前", "在学校里"),
    "beach": ("在海边", "在沙滩上", "在海滩上"),
    "night city": ("在夜晚的城市里", "在夜景前", "在城市的灯光下"),
    "snowfield": ("在雪地里", "在雪原上", "在冬日雪景中"),
    "cherry park": ("在樱花公园里", "在樱花树下", "在春天的公园里"),
}

_MOOD = {
    "day": ("白天", "晴天"),
    "morning": ("早晨", "清晨"),
    "sunset": ("傍晚", "日落时分"),
    "night": ("夜里", "夜空下"),
    "overcast": ("阴天", "多云的日子"),
}

_EFFECT = {
    "rain": ("下着雨", "雨点落下"),
    "snow": ("下着雪", "雪花飘落"),
    "petals": ("花瓣飘落", "粉色花瓣飞舞"),
    "leaves": ("秋叶飘落", "树叶飞过"),
    "sparkles": ("星光闪烁", "亮光闪闪"),
    "bubbles": ("泡泡飘起", "泡泡飞舞"),
    "speed lines": ("带速度线", "速度线掠过"),
}

_ITEM = {
    "balloon": ("手里拿着气球", "牵着一个气球"),
    "bird": ("一只鸟飞过", "小鸟飞过"),
    "butterfly": ("蝴蝶飞舞", "身边有蝴蝶"),
    "box": ("旁边有木箱", "身旁放着箱子"),
    "rolling ball": ("红球滚过", "一个球滚过"),
}

_FRAMING = {
    "full": ("全身", "全身镜头", "从头到脚"),
    "half": ("中景", "半身", "上半身"),
    "close": ("特写", "脸部特写", "近景"),
    "face": ("大特写", "面部大特写", "脸占满画面"),
}

_COLOR = {
    "black": "黑色", "brown": "棕色", "blonde": "金色", "red": "红色", "orange": "橙色", "pink": "粉色", "purple": "紫色",
    "blue": "蓝色", "navy": "深蓝色", "teal": "青色", "green": "绿色", "mint": "薄荷绿", "yellow": "黄色", "white": "白色",
    "silver": "银色", "gray": "灰色", "cream": "米色", "crimson": "深红色", "olive": "橄榄绿", "sky blue": "天蓝色",
}  # fmt: skip

_FEELING = {
    "happy": ("开心的", "快乐的"),
    "calm": ("", "平静的"),
    "excited": ("兴奋的", "激动的"),
    "surprised": ("惊讶的", "吃惊的"),
    "sad": ("伤心的", "难过的"),
    "angry": ("生气的", "愤怒的"),
    "shy": ("害羞的", "腼腆的"),
    "determined": ("坚定的", "认真的"),
}

_KIND = {
    "girl": ("女孩", "小女孩", "少女"),
    "boy": ("男孩", "小男孩", "少年"),
    "cat": ("猫", "小猫"),
    "bear": ("熊", "小熊"),
    "rabbit": ("兔子", "小兔子"),
    "fox": ("狐狸", "小狐狸"),
    "dog": ("狗", "小狗"),
}

_HAIR = {
    "short": "短发", "bob": "波波头", "long": "长发", "ponytail": "马尾", "twin-tail": "双马尾", "spiky": "刺猬头",
    "bun": "丸子头", "curly": "卷发", "braided": "辫子", "swept": "偏分头",
}  # fmt: skip

_GARMENT = {
    "shirt": "衬衫", "hoodie": "连帽衫", "dress": "连衣裙", "school uniform": "校服", "overalls": "背带裤", "coat": "大衣",
    "robe": "长袍",
}  # fmt: skip

_EXTRA = {
    "cape": "披着{}披风", "scarf": "围着{}围巾", "hat": "戴着{}帽子", "cat ears": "戴着猫耳", "ribbon": "系着{}蝴蝶结",
    "glasses": "戴着眼镜", "backpack": "背着{}背包",
}  # fmt: skip

_TEMPLATES = (
    "{who}{where}{does}{extras}，{style}，{camera}",
    "{style}，{who}{where}{does}{extras}，{camera}",
    "{where}，{who}{does}{extras}。{camera}，{style}",
    "{framing}，{who}{where}{does}{extras}，{style}",
    "卡通，{who}{does}{extras}，{where}，{style}",
    "{camera}，{who}{where}{does}{extras}",
    "动画，{style}，{framing}，{who}{where}{does}{extras}",
    "{who}{where}{does}{extras}",
    "{who}{does}{extras}，{framing}，{camera}",
)


def chinese(plan: ClipPlan, rng: np.random.Generator) -> str:
    """One wording of the plan in Chinese."""
    pick = picker(rng)
    first, *others = plan.people
    if is_duet(first.action):
        does = _does(first, pick, _who(others[0], pick, _BRIEFLY))
    else:
        does = _does(first, pick) + "".join(f"，{_who(other, pick, _BRIEFLY)}{_does(other, pick)}" for other in others)
    where = pick(("", *_MOOD[plan.mood])) if plan.background != "night city" else ""
    where += pick(_PLACE[plan.background])
    extras = f"，{pick(_ITEM[plan.item])}" if plan.item in _ITEM else ""
    extras += f"，{pick(_EFFECT[plan.effect])}" if plan.effect else ""
    return pick(_TEMPLATES).format(
        who=_who(first, pick),
        does=does,
        where=where,
        extras=extras,
        style=pick(_STYLE[plan.style]) + (pick(_PAPER[plan.finish.paper]) if plan.finish.paper in _PAPER else ""),
        camera=pick(_CAMERA[plan.view.move]),
        framing=pick(_FRAMING[plan.framing]),
    )


def _does(person: Person, pick: Pick, other: str = "") -> str:
    side = "右" if person.facing > 0 else "左"
    return pick(ACTION_PHRASES[person.action]).format(side=side, food=_FOOD[food_of(person)], other=other)


# How many facts are told of somebody: a character is a token, and what comes last in a long caption may be cut off.
_FULLY, _BRIEFLY = ("0", "1", "1", "1", "2", "2", "3"), ("0", "0", "1")


def _who(person: Person, pick: Pick, facts: tuple[str, ...] = _FULLY) -> str:
    c = person.character
    hair, top, _, accent = (_COLOR[name] for name in PALETTES[c.palette])
    told = int(pick(facts))
    words = []
    if told and not c.is_animal:
        words.append(f"留{hair}{_HAIR[c.hair]}")
    if told > 1 or (told and c.is_animal):
        words.append(f"穿{top}{_GARMENT[c.outfit]}")
    if told > 2 and c.extra in _EXTRA:
        words.append(_EXTRA[c.extra].format(accent))
    one, noun = ("一只", hair + pick(_KIND[c.kind])) if c.is_animal else ("一个", pick(_KIND[c.kind]))
    return one + "、".join(words) + "的" * bool(words) + pick(_FEELING[person.emotion]) + noun
