"""Tasks: what a sample's answer is, and what follows from it. A recipe names one."""

from balancemm_cli.tasks.base import Task
from balancemm_cli.tasks.classification import Classification
from balancemm_cli.tasks.localisation import Localisation
from balancemm_cli.tasks.multi_label import MultiLabel
from balancemm_cli.tasks.question_answering import QuestionAnswering
from balancemm_cli.tasks.regression import Regression

TASKS: dict[str, Task] = {
    "classification": Classification(),
    "localisation": Localisation(),
    "multi-label": MultiLabel(),
    "question-answering": QuestionAnswering(),
    "regression": Regression(),
}
