"""The words of `search.prompts` in Chinese, for a pathway whose language that is; the form of a prompt is the same.

Names and values of findings stand as the source recorded them. The hash of this file and of the English one, whose form
it shares, goes into every record.
"""

from __future__ import annotations

from dataclasses import replace

from clinical_data.chart import Answer, AnswerState, Chart
from search import prompts
from search.actions import ActionKind
from search.measurements import flat
from search.models.language_model import Prompt, Segment
from search.problem import SearchProblem
from search.settings import SearchSettings

HEADER = "一名医生正在查阅一份病历，内容截至{clock}。{question}"
ANSWERS = "\n可能的答案: {answers}。"
CASE = "\n\n患者: {vignette}。"
EARLIER = "此前结论: {text}"
CUES = {
    ActionKind.THINK: "\n思考:",
    ActionKind.ASK: "\n问题:",
    ActionKind.REPHRASE: "\n换言之:",
    ActionKind.REQUEST: "\n申请:",
}
NO_CASE = CASE.format(vignette="无描述")
REPLY_CUE = "\n回答:"
REASK_CUE = "\n重新思考后回答:"
PEER_CUE = "\n另一名医生由此接手，不知道前一名医生的答案。\n思考:"
RESULT_CUE = "\n结果:"
EVALUATION_CUE = "\n最后这一步对得出答案是否有用？请回答是或否:"
UNANSWERED = {
    AnswerState.PENDING: "已采集，结果未出",
    AnswerState.NOT_DONE_BY_NOW: "截至此时无记录",
    AnswerState.DONE_RESULT_NOT_IN_SOURCE: "已做，但本病历中没有结果",
    AnswerState.NOT_IN_SOURCE: "本病历不含此类信息",
    AnswerState.UNRECOGNISED: "无法识别",
}
PERSON = {"female": "女性", "male": "男性"}
FLAGS = {"H": "偏高", "L": "偏低", "A": "异常"}


def opening(problem: SearchProblem, settings: SearchSettings = prompts.DEFAULTS) -> Prompt:
    """Returns the prompt before any turn: instruction and answers (the same for all cases), then the case."""
    header = HEADER.format(clock=problem.clock_text, question=problem.question)
    if settings.answer_list == "shown":
        header += ANSWERS.format(answers="; ".join(e.display for e in problem.vocabulary.entries))
    lines = [CASE.format(vignette=vignette(problem.chart))]
    lines += [EARLIER.format(text=flat(text)) for text in problem.earlier]
    for item in problem.opening:
        answer = problem.chart.request(item)
        if answer.state is AnswerState.RECORDED:
            lines.append(f"{item.display}: {answer_text(answer, settings)}")
    return (Segment(header), Segment("\n".join(lines)))


def without_case(opened: Prompt, cue: Segment) -> Prompt:
    """Returns the instruction and the cue with no case between: what a model answers before it has read anything."""
    return (opened[0], Segment(NO_CASE), cue)


def request_segments(display: str, answer: Answer, settings: SearchSettings = prompts.DEFAULTS) -> Prompt:
    """Returns what a REQUEST adds to a prompt: the item and the chart's answer."""
    result = f"{RESULT_CUE} {answer_text(answer, settings)}"
    return (Segment(CUES[ActionKind.REQUEST]), Segment(f" {display}"), Segment(result))


def vignette(chart: Chart) -> str:
    """Returns sex, age and way of admission in one line."""
    age = "年龄不详" if chart.age is None else "90岁或以上" if chart.age >= 90 else f"{chart.age}岁"
    text = f"{PERSON.get(chart.sex, '患者')}，{age}"
    if source := chart.context.get("admission_source"):
        text += f"，入院来源: {flat(source)}"
    if unit := chart.context.get("unit_type"):
        text += f"，科室: {flat(unit)}"
    return text


def answer_text(answer: Answer, settings: SearchSettings = prompts.DEFAULTS) -> str:
    """Returns a chart's answer in words, as `prompts.answer_text` does."""
    if answer.state is not AnswerState.RECORDED:
        return UNANSWERED[answer.state]
    marked = tuple(replace(f, flag=FLAGS.get(f.flag, f.flag)) for f in answer.findings)
    return prompts.answer_text(replace(answer, findings=marked), settings)
