from prometheus_client.parser import text_string_to_metric_families

from glomerulab.apps.serve.metrics import METRICS_TYPE, Metrics


def samples(text: str) -> dict:
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_prometheus_own_parser_reads_the_numbers(keyed, trained):
    client = keyed.client("anna")
    image = (trained.parent / "60.png").read_bytes()
    before = samples(client.get("/metrics").text)
    for _ in range(3):
        assert client.post("/v1/crops?stain=PAS", content=image).status_code == 200
    client.post("/v1/crops", content=b"no image")
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == METRICS_TYPE
    after = samples(answer.text)
    route = (("method", "POST"), ("route", "/v1/crops"))
    key = ("glomerulab_requests_total", *route, ("status", "200"))
    assert after[key] - before.get(key, 0) == 3
    assert after["glomerulab_requests_total", *route, ("status", "422")] >= 1
    n_crops = sum(v for k, v in after.items() if k[0] == "glomerulab_crops_total")
    assert n_crops - sum(v for k, v in before.items() if k[0] == "glomerulab_crops_total") == 3
    assert after["glomerulab_crops_in_flight",] == 0
    assert after["process_resident_memory_bytes",] > 1e7
    assert after["glomerulab_jobs", ("state", "queued")] == 0


def test_unknown_addresses_do_not_fill_the_memory(open_server):
    client = open_server.client()
    for number in range(20):
        client.get(f"/nowhere/{number}")
    routes = {
        label
        for key in samples(client.get("/metrics").text)
        for label in key[1:]
        if label[0] == "route"
    }
    assert ("route", "none") in routes
    assert not [route for route in routes if "nowhere" in route[1]]


def test_invented_methods_paths_and_values_do_not_fill_the_memory(open_server):
    client = open_server.client()
    client.get("/metrics")
    n_before = len(samples(client.get("/metrics").text))
    for number in range(50):
        client.request(f"M{number}", "/v1/crops")
        client.request(f"M{number}", "/v1/model")
        client.request(f"M{number}", f"/nowhere/{number}")
        client.post(f"/v1/crops?stain=S{number}", content=b"x")
        client.get(f"/v1/jobs/{number}", headers={"Host": f"h{number}"})
    found = samples(client.get("/metrics").text)
    methods = {value for key in found for name, value in key[1:] if name == "method"}
    assert methods <= {"GET", "POST", "any", "other"}
    assert len(found) - n_before < 200  # of a handful of routes and statuses, not of 50


def test_two_servers_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.batches.observe(3)
    assert samples(one.text({}))["glomerulab_batch_size_count",] == 1
    assert samples(other.text({}))["glomerulab_batch_size_count",] == 0
