def as_html(model):
    return ""
