"""The published temporal head against values of the reference implementation (tests/golden/models)."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tpo_core.config.model import CgDetrConfig
from tpo_core.heads.cgdetr import spans
from tpo_core.heads.cgdetr.criterion import Criterion, criterion
from tpo_core.heads.cgdetr.matcher import match, matching_cost
from tpo_core.heads.cgdetr.network import CgDetr, CgDetrInputs, CgDetrOutput, MomentBranch, NegativePairs
from tpo_core.heads.cgdetr.postprocess import round_to_clips, windows
from tpo_core.heads.cgdetr.saliency import saliency_loss
from tpo_core.heads.cgdetr.targets import CgDetrTargets
from tpo_core.heads.cgdetr.transformer import Encoded

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "models"
NEVER_EXECUTED = ("txt_position_embed.", "txt_proj_linear.")
SIZES = {
    "text_width": "txt_dim",
    "width": "hidden",
    "heads": "heads",
    "sentence_heads": "txtproj_and_sentence_encoder_heads",
    "ffn_width": "ffn",
    "input_layers": "n_input_proj",
    "t2v_layers": "t2v_layers",
    "encoder_layers": "enc_layers",
    "decoder_layers": "dec_layers",
    "dummy_layers": "dummy_layers",
    "sentence_layers": "sent_layers",
    "moment_layers": "moment_layers",
    "queries": "num_queries",
    "dummies": "num_dummies",
    "prompts": "total_prompts",
}


class Pack:
    """One pack: its JSON, its tensors, and its tolerances."""

    def __init__(self, name: str) -> None:
        self.info: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
        self.tensors = load_file(GOLDEN / f"{name}.cases.safetensors")

    def group(self, *path: str) -> dict[str, Tensor]:
        """All tensors below a dotted path, by the rest of their names."""
        prefix = ".".join(path) + "."
        return {name.removeprefix(prefix): v for name, v in self.tensors.items() if name.startswith(prefix)}


FORWARD, CRITERION = Pack("cgdetr_forward"), Pack("cgdetr_criterion")
SPANS, POSTPROCESS = Pack("spans_and_matcher"), Pack("temporal_postprocess")


def published(sizes: dict[str, int], **probabilities: float) -> CgDetr:
    """The network with the pack's weights, loaded strictly but for what no forward pass reaches."""
    config = CgDetrConfig(**{ours: sizes[theirs] for ours, theirs in SIZES.items()}, **probabilities)
    network = CgDetr(config, sizes["vid_dim"], sizes["txt_dim"])
    weights = load_file(GOLDEN / "cgdetr.weights.safetensors")
    own = {n.removeprefix("cg_model."): value for n, value in weights.items() if n.startswith("cg_model.")}
    network.load_state_dict({name: v for name, v in own.items() if not name.startswith(NEVER_EXECUTED)})
    return network


def inputs_of(given: dict[str, Tensor]) -> CgDetrInputs:
    return CgDetrInputs(
        given["src_vid"],
        given["src_vid_mask"].bool(),
        given["src_txt"],
        given["src_txt_mask"].bool(),
        given["prompt_token"][:, 0],
    )


def row_of(inputs: CgDetrInputs, row: int, *, padded: bool) -> CgDetrInputs:
    """One sample alone, with the padding of the batch or without."""
    clips = len(inputs.video_mask_BV[row]) if padded else int(inputs.video_mask_BV[row].sum())
    words = len(inputs.text_mask_BW[row]) if padded else int(inputs.text_mask_BW[row].sum())
    one = slice(row, row + 1)
    return CgDetrInputs(
        inputs.video_BVC[one, :clips],
        inputs.video_mask_BV[one, :clips],
        inputs.text_BWC[one, :words],
        inputs.text_mask_BW[one, :words],
        inputs.prompt_BC[one],
    )


def compare_outputs(output: CgDetrOutput, expected: dict[str, Tensor], tolerance: dict[str, float]) -> None:
    """Every output that the pack has, at valid clips; intermediate values first, which name the part that differs."""
    valid_BV = output.video_mask_BV
    pairs = {
        "dummy_tokens": output.dummies_BND,
        "memory_global": output.encoded.prompt_BD,
        "memory_local": output.encoded.clips_BVD,
        "decoder_references": output.references_RBQ2,
        "decoder_states": output.states_RBQD,
        "cate_attn_weights": output.attention_BVK,
        "t2vattnvalues": output.word_attention_BV,
        "saliency_scores": output.saliency_BV,
        "aux_pred_logits": output.logits_RBQ2[:-1],
        "aux_pred_spans": output.spans_RBQ2[:-1],
        "pred_logits": output.logits_RBQ2[-1],
        "pred_spans": output.spans_RBQ2[-1],
    }
    of_clips = {"memory_local", "cate_attn_weights", "t2vattnvalues", "saliency_scores"}
    assert {"pred_logits", "pred_spans", "saliency_scores", "t2vattnvalues"} <= expected.keys()
    for name in pairs.keys() & expected.keys():
        ours, theirs = pairs[name], expected[name]
        if name in of_clips:
            ours, theirs = ours[valid_BV], theirs[valid_BV]
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def test_the_defaults_are_the_published_sizes():
    config, sizes = CgDetrConfig(), FORWARD.info["published_config"]
    ours = {theirs: getattr(config, ours) for ours, theirs in SIZES.items() if theirs in sizes}
    assert ours | {"txt_dim": sizes["txt_dim"]} == {name: sizes[name] for name in ours}
    assert (config.dropout, config.input_dropout) == (sizes["dropout"], sizes["input_dropout"])


@pytest.mark.parametrize("case", FORWARD.info["cases"])
@pytest.mark.parametrize("run", ["batch", "alone"])
def test_evaluation_outputs(case, run):
    network = published(FORWARD.info["config"]).eval()
    inputs, expected = inputs_of(FORWARD.group(case, "in")), FORWARD.group(case, FORWARD.info["required"])
    with torch.no_grad():
        if run == "batch":
            compare_outputs(network(inputs), expected, FORWARD.info["tolerance"])
            return
        for row in range(len(inputs.prompt_BC)):
            one = {n: v[:, row : row + 1] if layered(n) else v[row : row + 1] for n, v in expected.items()}
            compare_outputs(network(row_of(inputs, row, padded=True)), one, FORWARD.info["tolerance"])


def layered(name: str) -> bool:
    return name.startswith(("aux_", "decoder_"))


def test_a_ragged_batch_is_not_that_of_the_published_mask_defect():
    """Recognises the tiling of masks over heads that makes samples depend on one another."""
    ragged = [case for case, info in FORWARD.info["cases"].items() if "reference" in info["variants"]]
    network = published(FORWARD.info["config"]).eval()
    assert ragged
    for case in ragged:
        inputs, defect = inputs_of(FORWARD.group(case, "in")), FORWARD.group(case, "reference")
        with torch.no_grad():
            logits = network(inputs).logits_RBQ2[-1]
        assert not torch.allclose(logits, defect["pred_logits"], **FORWARD.info["tolerance"])


@pytest.mark.parametrize("case", FORWARD.info["cases"])
def test_neither_neighbours_nor_padding_change_a_sample(case):
    """In float64, where matrices of other shapes round alike to 1e-12."""
    network = published(FORWARD.info["config"]).eval().double()
    inputs = inputs_of({name: value.double() for name, value in FORWARD.group(case, "in").items()})
    with torch.no_grad():
        batch = network(inputs)
        for row in range(len(inputs.prompt_BC)):
            alone = network(row_of(inputs, row, padded=False))
            clips = alone.saliency_BV.shape[1]
            close = {"rtol": 0, "atol": 1e-9}
            torch.testing.assert_close(batch.spans_RBQ2[:, row], alone.spans_RBQ2[:, 0], **close)
            torch.testing.assert_close(batch.logits_RBQ2[:, row], alone.logits_RBQ2[:, 0], **close)
            torch.testing.assert_close(batch.saliency_BV[row, :clips], alone.saliency_BV[0], **close)
            torch.testing.assert_close(batch.word_attention_BV[row, :clips], alone.word_attention_BV[0], **close)


def targets_of(case: str) -> CgDetrTargets:
    given = CRITERION.group(case, "target")
    return CgDetrTargets(
        spans=list(given["spans"].split(CRITERION.info["cases"][case]["windows_per_sample"])),
        positive_BP=given["saliency_pos_labels"],
        negative_BP=given["saliency_neg_labels"],
        saliency_BV=given["saliency_all_labels"],
        relevant_BV=given["relevant_clips"],
    )


def train(case: str) -> tuple[CgDetr, CgDetrInputs, CgDetrOutput]:
    """The network in training mode with all dropping off, and its output with targets."""
    network = published(CRITERION.info["config"], dropout=0, input_dropout=0, drop_path=0).train()
    inputs = inputs_of(CRITERION.group(case, "in"))
    inputs.prompt_BC = inputs.prompt_BC.clone().requires_grad_()
    videos = CRITERION.info["cases"][case]["video_ids"]
    video_ids_B = torch.tensor([videos.index(video) for video in videos])
    return network, inputs, network(inputs, targets_of(case).relevant_BV, video_ids_B)


def stored_output(case: str) -> CgDetrOutput:
    """The output of the pack, so that the criterion is checked without the network."""
    stored = CRITERION.group(case, "required")
    negatives = None
    if "saliency_scores_neg" in stored:
        rows_B = stored["real_neg_mask"].bool()
        negatives = NegativePairs(rows_B, stored["saliency_scores_neg"], stored["t2vattnvalues_neg"])
    logits_RBQ2 = torch.cat([stored["aux_pred_logits"], stored["pred_logits"][None]])
    return CgDetrOutput(
        logits_RBQ2=logits_RBQ2,
        spans_RBQ2=torch.cat([stored["aux_pred_spans"], stored["pred_spans"][None]]),
        states_RBQD=torch.zeros_like(logits_RBQ2),
        references_RBQ2=torch.zeros_like(logits_RBQ2),
        encoded=Encoded(stored["src_vid"], stored["memory_moment"], stored["cate_attn_weights"]),
        saliency_BV=stored["saliency_scores"],
        word_attention_BV=stored["t2vattnvalues"],
        dummies_BND=stored["dummy_tokens"],
        prompts_PD=stored["global_rep_tokens"],
        video_mask_BV=stored["video_mask"].bool(),
        moment=MomentBranch(
            moment_BD=stored["memory_moment"],
            rest_BD=stored["nmmemory_moment"],
            frames_BVD=stored["src_vid"],
            sentence_BD=stored["sentence_txt"],
            dummy_sentence_BD=stored["sentence_dummy"],
            similarity_BVK=stored["moment2txt_similarity"],
        ),
        negatives=negatives,
    )


def compare_losses(found: Criterion, case: str) -> None:
    expected = CRITERION.info["cases"][case]["variants"]["required"]
    tolerance = {"abs": CRITERION.info["tolerance"]["loss_atol"], "rel": CRITERION.info["tolerance"]["loss_rtol"]}
    ours = {f"loss_{name}": value.item() for name, value in found.terms.items()} | found.class_error
    assert ours == {name: pytest.approx(value, **tolerance) for name, value in expected["losses"].items()}
    total = sum(found.weighted().values()).item()
    assert total == pytest.approx(expected["weighted_total"], abs=2e-4, rel=5e-5)
    matches = [
        [{"prediction": predicted.tolist(), "target": true.tolist()} for predicted, true in layer]
        for layer in found.matches
    ]
    assert matches == expected["matching"]


@pytest.mark.parametrize("case", CRITERION.info["cases"])
def test_training_outputs(case):
    _, inputs, output = train(case)
    expected = CRITERION.group(case, "required")
    close = {"atol": CRITERION.info["tolerance"]["outputs_atol"], "rtol": CRITERION.info["tolerance"]["outputs_rtol"]}
    compare_outputs(output, expected, close)
    assert output.moment is not None
    valid_BV = inputs.video_mask_BV
    torch.testing.assert_close(output.moment.moment_BD, expected["memory_moment"], **close)
    torch.testing.assert_close(output.moment.rest_BD, expected["nmmemory_moment"], **close)
    torch.testing.assert_close(output.moment.frames_BVD[valid_BV], expected["src_vid"][valid_BV], **close)
    torch.testing.assert_close(output.moment.sentence_BD, expected["sentence_txt"], **close)
    torch.testing.assert_close(output.moment.dummy_sentence_BD, expected["sentence_dummy"], **close)
    inside_BV = expected["moment_mask"].bool()
    torch.testing.assert_close(
        output.moment.similarity_BVK[inside_BV], expected["moment2txt_similarity"][inside_BV], **close
    )
    assert (output.negatives is None) == ("saliency_scores_neg" not in expected)
    if output.negatives is not None:
        rows_B = output.negatives.rows_B
        assert torch.equal(rows_B, expected["real_neg_mask"].bool())
        valid_MV = valid_BV[rows_B]
        for ours, theirs in (("saliency_MV", "saliency_scores_neg"), ("word_attention_MV", "t2vattnvalues_neg")):
            torch.testing.assert_close(getattr(output.negatives, ours)[valid_MV], expected[theirs][valid_MV], **close)


@pytest.mark.parametrize("case", CRITERION.info["cases"])
def test_losses_and_matching_of_stored_outputs(case):
    compare_losses(criterion(stored_output(case), targets_of(case)), case)


@pytest.mark.parametrize("case", CRITERION.info["cases"])
def test_losses_and_gradients_through_the_network(case):
    network, inputs, output = train(case)
    found = criterion(output, targets_of(case))
    compare_losses(found, case)
    sum(found.weighted().values()).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    gradients["prompt_token"] = inputs.prompt_BC.grad[:, None]
    stored = CRITERION.group(case, "required", "grad")
    assert "prompt_token" in stored
    for name, expected in stored.items():
        torch.testing.assert_close(
            gradients[name],
            expected,
            atol=CRITERION.info["tolerance"]["grad_atol"],
            rtol=CRITERION.info["tolerance"]["grad_rtol"],
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("saturated", CRITERION.info["criterion_only_cases"])
def test_saturated_outputs_give_finite_losses_and_gradients(saturated):
    info = CRITERION.info["criterion_only_cases"][saturated]
    case = info["outputs_of"].removesuffix(".required")
    output, targets, value = stored_output(case), targets_of(case), CRITERION.group(saturated)
    assert output.negatives is not None
    assert output.moment is not None
    replaced = next(iter(value.values())).clone().requires_grad_()
    if saturated == "saturation_saliency":
        output.negatives.saliency_MV = replaced
        loss, accepted = criterion(output, targets).terms["saliency"], [info["required"]]
    elif saturated == "saturation_attention":
        output.negatives.word_attention_MV = replaced
        loss, accepted = saliency_loss(output, targets), None
    else:
        output.moment.frames_BVD = replaced
        loss = criterion(output, targets).terms["ms_align"]
        accepted = [info["with_logits"], info["reference_fp32"]]
    loss.backward()
    assert loss.isfinite()
    assert replaced.grad is not None
    assert replaced.grad.isfinite().all()
    if accepted is not None:
        assert any(loss.item() == pytest.approx(number, abs=5e-5, rel=5e-5) for number in accepted)


def test_span_conversions_and_overlaps():
    given, expected = SPANS.group("spans", "in"), SPANS.group("spans", "out")
    close = {"atol": SPANS.info["tolerance"]["atol"], "rtol": SPANS.info["tolerance"]["rtol"]}
    inter_NM, union_NM = spans.intersection_and_union(given["a"], given["b"])
    ours = {
        "a_cxw": spans.to_centres(given["a"]),
        "cxw_to_xx": spans.to_ends(given["cxw"]),
        "union": union_NM,
        "iou": spans.iou(given["a"], given["b"]),
        "giou": spans.generalized_iou(given["a"], given["b"]),
        "intersection_over_second": inter_NM / (given["b"][:, 1] - given["b"][:, 0]),
    }
    for name, value in ours.items():
        defined = expected.get(f"{name}_defined", torch.ones_like(value)).bool()
        torch.testing.assert_close(value[defined], expected[name][defined], **close)
    assert ours["iou"].isfinite().all()
    assert ours["giou"].isfinite().all()


@pytest.mark.parametrize("case", SPANS.info["matching"])
def test_cost_and_assignment(case):
    info, given = SPANS.info["matching"][case], SPANS.group("match", case, "in")
    logits_BQ2, spans_BQ2, truth_M2 = given["pred_logits"], given["pred_spans"], given["target_spans"]
    cost = matching_cost(logits_BQ2, spans_BQ2, truth_M2)
    expected = SPANS.group("match", case, "out")["cost"]
    torch.testing.assert_close(
        cost, expected, atol=SPANS.info["tolerance"]["atol"], rtol=SPANS.info["tolerance"]["rtol"]
    )
    pairs = match(logits_BQ2, spans_BQ2, list(truth_M2.split(info["targets_per_sample"])))
    assert [{"prediction": p.tolist(), "target": t.tolist()} for p, t in pairs] == info["assignment"]


@pytest.mark.parametrize("case", POSTPROCESS.info["cases"])
def test_windows_in_seconds(case):
    info, given = POSTPROCESS.info["cases"][case], POSTPROCESS.group(case, "in")
    found = windows(given["pred_logits"][0], given["pred_spans"][0], info["duration"])
    assert info["steps"][-1] == "round_multiple"
    last_s = info["max_timestamp"] if "clip_ts" in info["steps"] else math.inf
    found = round_to_clips(found, info["clip_length"], last_s)
    tolerance = POSTPROCESS.info["tolerance"]
    assert [window[:2] for window in found] == [
        (pytest.approx(start, abs=tolerance["window_atol"]), pytest.approx(end, abs=tolerance["window_atol"]))
        for start, end, _ in info["windows"]
    ]
    assert [window[2] for window in found] == pytest.approx(
        [score for _, _, score in info["windows"]], abs=tolerance["score_atol"]
    )
    assert list(found[0]) == pytest.approx(info["top1"], abs=tolerance["score_atol"])
