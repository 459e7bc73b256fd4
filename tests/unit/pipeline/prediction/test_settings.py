from glomerulab.pipeline.prediction.settings import MANY_IMAGES, PredictSettings


def test_few_images_are_not_worth_the_start_of_a_process() -> None:
    settings = PredictSettings(n_workers=3)
    assert settings.processes(MANY_IMAGES - 1) == 1
    assert settings.processes(MANY_IMAGES) == 3
