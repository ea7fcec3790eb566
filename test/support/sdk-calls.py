"""Every call of the published SDK for Python whose route exists, unchanged: it finds address and key in the environment.

The scene to call in is a JSON object in SCENE (test/support/sdk-scene.ts); one that is not as it should be ends this with a traceback.
"""

import asyncio
import datetime
import json
import os
import pathlib
import tempfile

import oz_agent_sdk
from oz_agent_sdk import AsyncOzAPI, OzAPI

scene = json.loads(os.environ["SCENE"])
done, waiting = scene["doneRunId"], scene["waitingRunId"]
client = OzAPI()
agent = client.agent


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def refused(kind, call):
    try:
        call()
    except kind as error:
        assert error.body["message"] and error.body["code"], error.body
        return error
    raise AssertionError(f"{kind.__name__} was expected")


# Starting
with tempfile.TemporaryDirectory() as folder:
    notes = pathlib.Path(folder) / "notes.txt"
    notes.write_text("Look here first.")
    started = agent.run(
        prompt="Look at it",
        title="Look",
        team=True,
        interactive=True,
        mode="plan",
        parent_run_id=done,
        metadata={"ticket_id": "SHOP-8", "origin": "python"},
        attachments=[{"file_name": "notes.txt", "mime_type": "text/plain", "data": notes}],
        config={
            "name": "look",
            "environment_id": scene["environmentId"],
            "base_prompt": "Be brief.",
            "worker_host": "nobody",
            "idle_timeout_minutes": 5,
            "harness": {"type": "oz"},
        },
    )
equal(started.state, "QUEUED")
equal(started.run_id, started.task_id)
run = agent.runs.retrieve(started.run_id)
equal(run.title, "Look")
equal(run.source, "API")
equal(run.scope.type, "Team")
equal(run.metadata, {"ticket_id": "SHOP-8", "origin": "python"})
equal(run.agent_config.environment_id, scene["environmentId"])
more = agent.run(prompt="And now?", conversation_id=scene["doneConversationId"])
equal(agent.runs.retrieve(more.run_id).conversation_id, scene["doneConversationId"])

# What has no feature behind it is refused by its name
for key, value in {"skill": "acme/shop:review", "agent_identity_uid": "u", "on_behalf_of": "u"}.items():
    error = refused(oz_agent_sdk.APIStatusError, lambda: agent.run(prompt="x", **{key: value}))
    assert error.status_code in (400, 422) and key in error.message, error.message
refused(oz_agent_sdk.UnprocessableEntityError, lambda: agent.run(prompt="x", config={"mcp_servers": {"a": {"command": "x"}}}))
refused(oz_agent_sdk.NotFoundError, lambda: agent.run(prompt="x", config={"environment_id": "unknown"}))
for run_id in (started.run_id, more.run_id):
    agent.runs.cancel(run_id)

# Reading
run = agent.runs.retrieve(done)
equal(run.state, "SUCCEEDED")
equal(run.status_message.message, "All is done.")
equal(run.session_id, scene["doneSessionId"])
equal(sorted(artifact.artifact_type for artifact in run.artifacts), ["FILE", "PLAN", "PULL_REQUEST"])
assert isinstance(run.created_at, datetime.datetime) and run.created_at.tzinfo is not None


def found(**query):
    return sorted(run.run_id for run in agent.runs.list(**query) if run.run_id in (done, waiting))


both = sorted([done, waiting])
long_ago = datetime.datetime(2020, 1, 1)
equal(found(), both)
# Pages are asked for one after the other.
equal(found(limit=1), both)
equal(found(state=["QUEUED", "FAILED"]), [waiting])
equal(found(state=["QUEUED", "SUCCEEDED"]), both)
equal(found(metadata={"ticket_id": "SHOP-7"}), [waiting])
equal(found(metadata={"ticket_id": "SHOP-7", "other": "x"}), [])
equal(found(artifact_type="FILE"), [done])
equal(found(environment_id=scene["environmentId"]), [waiting])
equal(found(environment_id="empty-environment"), [done])
equal(found(name="nightly"), [waiting])
equal(found(q="needle search"), [waiting])
equal(found(creator=scene["userId"], executor=scene["userId"]), both)
equal(found(source="API", execution_location="REMOTE"), both)
equal(found(created_after=long_ago, updated_after=long_ago.replace(tzinfo=datetime.timezone.utc)), both)
equal(found(created_before=long_ago), [])
equal(found(ancestor_run_id=waiting), [])
for order in ("asc", "desc"):
    for field in ("updated_at", "created_at", "title", "agent"):
        equal(found(sort_by=field, sort_order=order), both)
nothing = {"schedule_id": "s", "skill": "s", "skill_spec": "s", "automation_id": "a", "factory_uid": "f"}
nothing |= {"model_id": "none/such", "source": "JIRA", "execution_location": "LOCAL", "executor": "nobody"}
for key, value in nothing.items():
    equal((key, found(**{key: value})), (key, []))

# Steering
agent.runs.submit_followup(waiting, message="And the haystack", mode="normal")
# The SDK does not read the JSON of an answer that is a string.
equal(json.loads(agent.runs.cancel(waiting)), waiting)
equal(agent.runs.retrieve(waiting).state, "CANCELLED")
refused(oz_agent_sdk.BadRequestError, lambda: agent.runs.submit_followup(done))

# What is beside runs
equal([environment.uid for environment in agent.list_environments(sort_by="name").environments], [scene["environmentId"]])
equal(agent.list(repo="acme/shop", refresh=True, sort_by="last_run", include_malformed_skills=True).agents, [])
equal(agent.get_artifact(scene["planUid"]).data.content, "# The plan")
equal(agent.get_artifact(scene["fileUid"]).data.filename, "report.txt")
attachments = agent.runs.list_handoff_attachments(done).attachments
equal([attachment.filename for attachment in attachments], ["workspace.bundle", "workspace.diff"])
for attachment in attachments:
    answer = client._client.get(attachment.download_url)
    equal((answer.status_code, answer.text), (200, attachment.filename.removeprefix("workspace.")))
equal(agent.sessions.check_redirect(scene["doneSessionId"]).conversation_id, scene["doneConversationId"])
equal(agent.conversations.check_redirect(scene["doneConversationId"]).session_id, None)

# What is wrong
refused(oz_agent_sdk.NotFoundError, lambda: agent.runs.retrieve("nope"))
refused(oz_agent_sdk.NotFoundError, lambda: agent.get_artifact("nope"))
refused(oz_agent_sdk.BadRequestError, lambda: list(agent.runs.list(limit=0)))
refused(oz_agent_sdk.AuthenticationError, lambda: list(OzAPI(api_key="wk-unknown-unknown").agent.runs.list()))

# An answer that is lost on the way: the SDK asks again, and nothing is done twice
relayed = OzAPI(base_url=scene["relayUrl"] + "/api/v1").agent
once = relayed.run(prompt="once", config={"name": "once"})
equal([run.run_id for run in relayed.runs.list(name="once")], [once.run_id])


async def asynchronously():
    async with AsyncOzAPI() as other:
        equal((await other.agent.runs.retrieve(done)).run_id, done)


asyncio.run(asynchronously())
