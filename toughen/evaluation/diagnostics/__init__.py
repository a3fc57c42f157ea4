"""Diagnostics of a model's robustness: curves, loss surfaces, confusion matrices, norms, distances, transfer."""

from toughen.evaluation.diagnostics.boundary import boundary_distance as boundary_distance
from toughen.evaluation.diagnostics.confusion import confusion as confusion
from toughen.evaluation.diagnostics.curves import accuracy_by_eps as accuracy_by_eps
from toughen.evaluation.diagnostics.curves import accuracy_by_restarts as accuracy_by_restarts
from toughen.evaluation.diagnostics.curves import accuracy_by_steps as accuracy_by_steps
from toughen.evaluation.diagnostics.curves import loss_by_eps as loss_by_eps
from toughen.evaluation.diagnostics.diagnose import diagnose_runs as diagnose_runs
from toughen.evaluation.diagnostics.entropy import attack_entropy as attack_entropy
from toughen.evaluation.diagnostics.names import NAMES as NAMES
from toughen.evaluation.diagnostics.nuclear import mean_logit_distance as mean_logit_distance
from toughen.evaluation.diagnostics.nuclear import nuclear_norms as nuclear_norms
from toughen.evaluation.diagnostics.surface import loss_surface as loss_surface
from toughen.evaluation.diagnostics.transfer import transfer_matrix as transfer_matrix
