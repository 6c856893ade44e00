from __future__ import annotations

from bench.questions import QUESTIONS


def test_every_question_says_what_it_asks_and_has_a_name_of_its_own() -> None:
    assert len({question.name for question in QUESTIONS}) == len(QUESTIONS)
    for question in QUESTIONS:
        assert question.__module__ == f"bench.questions.{question.name}"
        assert len(question.about()) > 200
