"""What `helm test` asks a release: a line a check, exit 1 if one fails. Python's library alone."""

import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.request

asked = json.loads(sys.argv[1])
HEADERS = {"Content-Type": "application/json"}
if os.environ.get("API_KEY"):
    HEADERS["Authorization"] = f"Bearer {os.environ['API_KEY']}"
SAMPLE = re.compile(r"^(moe_serve_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Failed(Exception):
    """A check's answer, when it is no."""


def fetch(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=HEADERS)
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        raise Failed(f"{url}: {error.code} {error.read()[:300].decode(errors='replace')}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"{url}: {error}") from None


def post(path, body):
    return json.loads(fetch(asked["server"] + path, {"model": asked["model"], **body}))


def require(true, otherwise):
    if not true:
        raise Failed(otherwise)


def models():
    listed = [each["id"] for each in json.loads(fetch(asked["server"] + "/v1/models"))["data"]]
    require(asked["model"] in listed, f"{asked['model']} is not among {listed}")
    return f"{asked['model']} is listed"


def completion():
    body = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    answer = post("/v1/completions", body)
    tokens, finish = answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]
    require(tokens == 8, f"8 tokens were asked for, {tokens} came")
    require(finish == "length", f"finish_reason is {finish}, not length")
    return "8 tokens, finish_reason length"


def samples(text, name, **labels):
    for found, given, value in SAMPLE.findall(text):
        if found == name and all(f'{key}="{wish}"' in given for key, wish in labels.items()):
            yield float(value)


def padding():
    text = fetch(asked["exporter"] + "/metrics")
    active = list(samples(text, "moe_serve_padding_active"))
    require(
        len(active) == asked["ranks"], f"{len(active)} of {asked['ranks']} workers say something"
    )
    require(
        all(value == 1 for value in active), "a worker does not prove that its pads are in force"
    )
    losses = list(samples(text, "moe_serve_padding_neuron_loss_ratio"))
    allowed = list(samples(text, "moe_serve_padding_max_neuron_loss_ratio"))
    require(losses and allowed, "no worker says what its pads lose")
    require(
        max(losses) <= min(allowed),
        f"{max(losses)} of the neurons are lost, {min(allowed)} allowed",
    )
    policies = list(samples(text, "moe_serve_config_info", policy=asked["policy"]))
    require(len(policies) == asked["ranks"], f"not every worker follows policy {asked['policy']}")
    lost = f"{max(losses):.4f} of the neurons lost"
    return f"{asked['policy']} is in force in {len(active)} workers, {lost}"


def quality():
    wrong = []
    for question in asked["questions"]:
        body = {
            "prompt": question["prompt"],
            "max_tokens": asked["answer_tokens"],
            "temperature": 0,
        }
        text = post("/v1/completions", body)["choices"][0]["text"]
        if question["expect"] not in text:
            wrong.append(f"{question['prompt']!r}: {text!r} lacks {question['expect']!r}")
    right = len(asked["questions"]) - len(wrong)
    require(
        right >= asked["min_right"],
        f"{right} right, {asked['min_right']} needed; {'; '.join(wrong)}",
    )
    return f"{right} of {len(asked['questions'])} questions right"


def chat():
    body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 512}
    choice = post("/v1/chat/completions", body)["choices"][0]
    text = choice["message"].get("content") or ""
    require(text.strip(), f"no text; finish_reason {choice['finish_reason']}")
    require("<|" not in text, f"the answer has raw markers: {text[:200]!r}")
    return "an answer without raw markers"


def tool():
    body = {
        "messages": [{"role": "user", "content": "What is the weather in Paris? Use the tool."}],
        "tools": [TOOL],
        "max_tokens": 512,
    }
    calls = post("/v1/chat/completions", body)["choices"][0]["message"].get("tool_calls") or []
    require(calls, "the model's tool call was not parsed")
    function = calls[0]["function"]
    require(function["name"] == "get_weather", f"it calls {function['name']}")
    require("city" in json.loads(function["arguments"]), f"arguments {function['arguments']}")
    return f"get_weather({function['arguments']})"


checks = [models, completion]
checks += [padding] if asked["exporter"] else []
checks += [quality] if asked["questions"] else []
checks += [chat, tool] if asked["chat"] else []
failed = 0
for check in checks:
    try:
        print(f"ok    {check.__name__}: {check()}", flush=True)
        continue
    except Failed as error:
        why = " ".join(str(error).split())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"an answer of another form: {error!r}"
    failed += 1
    print(f"FAIL  {check.__name__}: {why}", flush=True)
    if check is models:  # the others need that server and that model
        break
sys.exit(1 if failed else 0)
